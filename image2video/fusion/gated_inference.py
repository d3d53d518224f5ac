"""GSM and GSF without gradient, in as few operations as they take: on small maps each costs more than its work.

The gated frames y stand in a buffer with a frame of zeros before the first and behind the last one, half by half, so
that the shifted ones are a view of it, and their spatial means need no shift of their own.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from image2video.fusion.gate import convolve, normed_relu, product_planes
from image2video.fusion.shift import Shift
from image2video.trace.capture import is_plain
from image2video.trace.recompute import in_reentrant_checkpoint

_FEW_CHANNELS = 16
_MANY_CELLS = 28 * 28
_WEIGHTS = ("weight", "bias", "scale")
_FEW_MEANS = 1 << 13
"""Below, setting up a convolution takes longer than a product does."""


def is_served(fusion: nn.Module, frames: Tensor, shift: Shift, gate: Tensor) -> bool:
    """Whether the functions below do this call: evaluation without gradient, eager on a CPU, one dtype, NCHW, zeros."""
    # The cheapest questions first: each call asks them.
    if fusion.training:
        return False
    if torch.is_grad_enabled() and (frames.requires_grad or _needs_gradient(fusion)):
        return False
    dtype = frames.dtype
    return (
        frames.device.type == "cpu"
        and shift.parts == 1
        and shift.padding == "zeros"
        and (dtype is torch.float32 or dtype is torch.float64)
        and gate.dtype is dtype
        and frames.is_contiguous()
        and is_plain(frames)
        and not torch.is_autocast_enabled("cpu")
        and (torch.is_inference_mode_enabled() or torch.is_grad_enabled() or not in_reentrant_checkpoint())
    )


def _needs_gradient(fusion: nn.Module) -> bool:
    """Whether a tensor of the module asks for a gradient: a parameter, or what stands in the place of one.

    Where another network makes the weights (a hypernetwork), or a step of training did (MAML), they are plain tensors:
    attributes that no list of parameters has. A parametrisation computes them where they are asked for.
    """
    if any(p.requires_grad for p in fusion.parameters()):
        return True
    return any(
        isinstance(value, Tensor) and value.requires_grad
        for module in fusion.modules()
        for value in (
            *vars(module).values(),
            *module._buffers.values(),
            *(getattr(module, name, None) for name in _WEIGHTS),
        )
    )


def inferred_gsm(frames: Tensor, bn: nn.Module, gate: nn.Conv3d, T: int, *, interleaved: bool) -> Tensor:
    """Return frames `(B·T, C, H, W)`, gated and shifted, as `GSM` says."""
    x, y, moved = _gated(frames, bn, gate, T)
    out = torch.empty_like(frames)
    into = out.view(-1, T, 2, *x.shape[3:]).transpose(1, 2)
    if interleaved:
        torch.sub(_paired(x), _paired(y), out=_interleaved(into)).add_(_paired(moved))
    else:
        torch.sub(x, y, out=into).add_(moved)
    return out


def inferred_gsf(
    frames: Tensor,
    bn: nn.Module,
    gate: nn.Conv3d,
    scale: Tensor | None,
    first: nn.Conv2d,
    second: nn.Conv2d,
    T: int,
) -> Tensor:
    """Return frames `(B·T, C, H, W)` with the gate's channels gated, shifted and fused, as `GSF` says."""
    p, (H, W) = gate.in_channels, frames.shape[-2:]
    # Contiguous, since norms are slower on a slice.
    x, y, moved = _gated(frames[:, :p].contiguous(), bn, gate, T)
    left = x - y
    means = torch.stack([moved.mean((-2, -1)), left.mean((-2, -1))], dim=2)  # (B, 2, y or r, T, p/2)
    weights = _weights(means.flatten(1, 2), first, second)
    fused = left.lerp_(moved, weights[..., None, None])
    out = frames.clone()
    into = out[:, :p].view(-1, T, 2, p // 2, H, W).transpose(1, 2)
    if scale is None:
        _interleaved(into).copy_(_paired(fused))
    else:
        torch.lerp(x, fused, scale.view(2, 1, p // 2, 1, 1), out=into)
    return out


class _Gated(NamedTuple):
    """Views `(B, 2, T, p/2, H, W)`, half by half: of x, of y = gate · x, and of y shifted along T."""

    x: Tensor
    y: Tensor
    moved: Tensor


def _gated(share: Tensor, bn: nn.Module, gate: nn.Conv3d, T: int) -> _Gated:
    """Gate and shift contiguous frames `(B·T, p, H, W)`."""
    N, p, H, W = share.shape
    B, half = N // T, p // 2
    planes = _planes(normed_relu(share, bn), gate, T)
    x = share.view(B, T, 2, half, H, W).transpose(1, 2)
    padded = share.new_zeros((B, 2, T + 2, half, H, W))
    y = torch.mul(x, planes.transpose(1, 2).unsqueeze(3), out=padded[:, :, 1:-1])
    # (b, half, t) is frame t + 1 of the first half, which moves back, and frame t - 1 of the second, which moves ahead.
    frame = half * H * W
    strides = (2 * (T + 2) * frame, T * frame, frame, H * W, W, 1)
    return _Gated(x, y, padded.as_strided(x.shape, strides, 2 * frame))


def _planes(active: Tensor, gate: nn.Conv3d, T: int) -> Tensor:
    """Return the planes `(B, T, 2, H, W)` of the gate, of what is active `(B·T, p, H, W)`."""
    H, W = active.shape[-2:]
    # A matrix product for each tap costs less, but of few channels, where its matrices are thin.
    thin = active.shape[1] <= _FEW_CHANNELS and H * W >= _MANY_CELLS
    taps = (convolve if thin else product_planes)(active, gate.weight).view(-1, T, 2, 3, H, W)
    assert gate.bias is not None
    before, now, after = taps.unbind(3)
    planes = now + gate.bias[:, None, None]
    planes[:, 1:] += before[:, :-1]
    planes[:, :-1] += after[:, 1:]
    return planes.tanh_()


def _weights(means: Tensor, first: nn.Conv2d, second: nn.Conv2d) -> Tensor:
    """Return the fusion weights `(B, 2, T, p/2)` of means `(B, 4, T, p/2)`: of y and r, half by half."""
    assert first.bias is not None
    assert second.bias is not None
    # The kernels lie over (channel, time), the means over (time, channel).
    kernel = torch.cat([first.weight, second.weight]).transpose(2, 3)
    bias = torch.cat([first.bias, second.bias])
    if means.numel() > _FEW_MEANS:
        return functional.conv2d(means, kernel, bias, padding=1, groups=2).sigmoid_()
    B, _, T, half = means.shape
    columns = functional.unfold(means, 3, padding=1).view(B, 2, 18, T * half)
    return torch.matmul(kernel.reshape(2, 1, 18), columns).view(B, 2, T, half).add_(bias[:, None, None]).sigmoid_()


def _paired(halves: Tensor) -> Tensor:
    """View `(B, 2, T, p/2, H, W)` as `(B, 2, T, p/4, 2, H, W)`: channel (j, i) is channel i · p/4 + j of its half."""
    return halves.unflatten(3, (2, -1)).transpose(3, 4)


def _interleaved(halves: Tensor) -> Tensor:
    """View `(B, 2, T, p/2, H, W)` as `(B, 2, T, p/4, 2, H, W)`, in order: where paired channels go."""
    return halves.unflatten(3, (-1, 2))
