"""The gate-shift-fuse module (Sudhakaran, Escalera, Lanz, TPAMI 2023)."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from image2video.errors import InputError
from image2video.fusion.base import Fusion, Placement
from image2video.fusion.gate import temporal_gate
from image2video.fusion.gated_inference import inferred_gsf, is_served
from image2video.fusion.gsf_plain import plain_fuse
from image2video.fusion.gsf_written import written_fuse
from image2video.fusion.planes import lies_apart, share_apart, share_joined
from image2video.fusion.shift import Padding, Shift, check_padding
from image2video.fusion.states import refuse_other_form
from image2video.trace.capture import is_transformed
from image2video.trace.layout import Layout, contiguous_like


class GSF(Fusion):
    """Gate a share of the channels, shift it along T half each way, and fuse it with what stayed by learned weights.

    Frames are `(B·T, C, H, W)`; tokens become a map. On the first p channels, in halves x_k of p/2:

    1. g = tanh(Conv3d(ReLU(BN(x)))), kernel 3×3×3, one plane per half.
    2. y_k = g_k · x_k, r_k = x_k - y_k.
    3. y_1 takes the next frame's, y_2 the previous frame's.
    4. a_k = sigmoid(Conv2d([mean_HW y_k, mean_HW r_k])), 3×3 over the (channel, time) plane;
       out_k = a_k · y_k + (1 - a_k) · r_k.
    5. Channels interleave within each half; the other C - p channels follow, untouched.

    Parameters: 29·p + 40 (and p with `residual`). Names and shapes follow the public checkpoints: `bn`, `conv3D`,
    `channel_conv1`, `channel_conv2`.

    Args:
        channels: C, 4 or more.
        ratio: p = min(4·⌈ratio·C/4⌉, 4·⌊C/4⌋), so a share above 0 and at most 1. The rounding is ours (the
            published module needs p to be a multiple of 4); 0.25 is the paper's.
        residual: out = x + scale · (fused - x) without the interleaving, with a learned scale of p values that
            starts at zero (ours): a fresh module is the identity.
        padding: what the frame without a neighbour takes: `"zeros"` (published), `"replicate"` or `"circular"`.

    Raises:
        InputError: fewer than 4 channels, a ratio out of range, an unknown padding.

    Example:
        >>> gsf = GSF(64)
        >>> gsf.fused_channels, sum(p.numel() for p in gsf.parameters())
        (16, 504)
    """

    placement: ClassVar[Placement] = "after"
    min_channels: ClassVar[int] = 4

    def __init__(
        self, channels: int, ratio: float = 0.25, residual: bool = False, *, padding: Padding = "zeros"
    ) -> None:
        check_ratio(ratio)
        check_padding(padding)
        super().__init__(channels, residual=residual)
        p = min(4 * math.ceil(ratio * channels / 4), 4 * (channels // 4))
        self.ratio = ratio
        self.padding: Padding = padding
        self.fused_channels = p
        self.bn = nn.BatchNorm2d(p)
        self.conv3D = nn.Conv3d(p, 2, 3, padding=1, groups=2)
        self.channel_conv1 = nn.Conv2d(2, 1, 3, padding=1)
        self.channel_conv2 = nn.Conv2d(2, 1, 3, padding=1)
        if residual:
            self.scale = nn.Parameter(torch.zeros(p))

    def fuse_layout(self, frames: Tensor, T: int, layout: Layout, parts: int) -> Tensor:
        """Gate, shift and fuse frames in any layout; where channels are innermost, the share is copied out and in."""
        # A subclass with a `fuse` of its own gets all channels.
        if type(self).fuse is not GSF.fuse or is_transformed() or not lies_apart(frames, layout):
            return super().fuse_layout(frames, T, layout, parts)
        share, rest = share_apart(frames, layout, self.fused_channels)
        return share_joined(self.fuse(share, T, parts), rest, layout)

    def fuse(self, frames: Tensor, T: int, parts: int) -> Tensor:
        """Gate, shift and fuse frames `(B·T·parts, C, H, W)`, or their fused channels alone."""
        p = self.fused_channels
        shift = Shift(T, parts, self.padding)
        if is_served(self, frames, shift, self.conv3D.weight):
            learned = self.scale if self.residual else None
            return inferred_gsf(frames, self.bn, self.conv3D, learned, self.channel_conv1, self.channel_conv2, T)
        share, rest = frames.split([p, frames.shape[1] - p], dim=1)
        # A slice would keep the convolution's whole output alive for the backward pass, and norms are slower on it.
        share = contiguous_like(share)
        gate = temporal_gate(share, self.bn, self.conv3D, T, parts).to(frames.dtype)
        scale = self.scale.to(frames.dtype) if self.residual else None
        first, second = self.channel_conv1, self.channel_conv2
        assert first.bias is not None
        assert second.bias is not None
        kernel, bias = torch.cat([first.weight, second.weight]), torch.cat([first.bias, second.bias])
        fuse = plain_fuse if is_transformed() else written_fuse
        return fuse(share, rest, gate, scale, kernel, bias, shift)

    def extra_repr(self) -> str:
        """Show the options in `repr`."""
        return f"{self.channels}, ratio={self.ratio}, padding={self.padding!r}, residual={self.residual}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        refuse_other_form(self, state_dict, prefix, marker="scale", errors=args[-1])
        super()._load_from_state_dict(state_dict, prefix, *args)


def check_ratio(ratio: float) -> None:
    """Raise `InputError` unless `ratio` is a share of the channels."""
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio <= 1:
        raise InputError(f"ratio must be a share of the channels above 0 and at most 1, got {ratio!r}")
