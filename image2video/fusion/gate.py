"""The temporal gate that GSM and GSF share, and the interleaving of channels after it."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from image2video.fusion.shift import shift_frames
from image2video.trace.capture import is_captured
from image2video.trace.layout import is_channels_last


def temporal_gate(frames: Tensor, bn: nn.Module, conv: nn.Conv3d, T: int, parts: int) -> Tensor:
    """Compute the gate planes tanh(Conv3d(ReLU(BN(x)))) of frames `(B·T·parts, p, H, W)` as `(B·T·parts, 2, H, W)`.

    The 3×3×3 convolution has two groups. It runs as one 2-D convolution with six outputs, one per group and tap in
    time. The taps' planes are then moved by one step along T and added. So nothing is permuted to `(B, C, T, H, W)`,
    and only planes are shifted. The BatchNorm over (B, T, H, W) is the 2-D one on frames.
    """
    taps = tap_planes(normed_relu(frames, bn), conv.weight).unflatten(1, (2, 3))
    before, now, after = taps.unbind(2)
    assert conv.bias is not None
    planes = now + shift_frames(before, T, -1, parts=parts) + shift_frames(after, T, 1, parts=parts)
    return torch.tanh(planes + conv.bias.to(planes.dtype)[:, None, None])


def normed_relu(frames: Tensor, bn: nn.Module) -> Tensor:
    """Return ReLU(BN(x)), for what stands in the place of the norm too."""
    normed = bn(frames)
    # A norm returns a tensor of its own, so ReLU may overwrite it; an identity in its place returns the frames.
    return functional.relu(normed, inplace=normed is not frames)


def tap_planes(frames: Tensor, weight: Tensor) -> Tensor:
    """Convolve frames `(N, p, H, W)` with each temporal tap of `(2, p/2, 3, 3, 3)`; six planes `(N, 6, H, W)`.

    The planes come group by group, tap by tap. On a CPU a matrix product makes 9 × 6 planes, and `fold` adds them over
    the 3×3 places: the grouped convolutions of CPU libraries are made for many outputs and slow for three. At
    (16, 64, 56, 56) the product takes 2 to 5 times less time, forward and backward.
    """
    plain = frames.device.type != "cpu" or is_captured()
    return (convolve if plain else product_planes)(frames, weight)


def convolve(frames: Tensor, weight: Tensor) -> Tensor:
    """Do what `tap_planes` says by one convolution."""
    return functional.conv2d(frames, weight.transpose(1, 2).flatten(0, 1), None, padding=1, groups=2)


def product_planes(frames: Tensor, weight: Tensor) -> Tensor:
    """Do what `tap_planes` says by a matrix product and a sum over places."""
    N, p, H, W = frames.shape
    # fold writes place (i, j) to offset (i - 1, j - 1), and a convolution reads from there: hence the flip.
    matrix = weight.flip((3, 4)).permute(0, 2, 3, 4, 1).reshape(2, 27, p // 2)
    columns = torch.matmul(matrix, frames.reshape(N, 2, p // 2, H * W))
    return functional.fold(columns.flatten(1, 2), (H, W), 3, padding=1)


def interleave(frames: Tensor) -> Tensor:
    """Interleave channels within each half: position (i, j) of (2, p/4) goes to (j, i) of (p/4, 2)."""
    if is_channels_last(frames):
        last = frames.permute(0, 2, 3, 1)
        return last.unflatten(3, (2, 2, -1)).transpose(4, 5).flatten(3).permute(0, 3, 1, 2)
    return frames.unflatten(1, (2, 2, -1)).transpose(2, 3).flatten(1, 3)
