"""The gate-shift module (Sudhakaran et al., CVPR 2020)."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from image2video.fusion.base import Fusion, Placement
from image2video.fusion.gate import temporal_gate
from image2video.fusion.gated_inference import inferred_gsm, is_served
from image2video.fusion.gsm_written import plain_gate_shift, written_gate_shift
from image2video.fusion.shift import Padding, Shift, check_padding
from image2video.fusion.states import refuse_other_form
from image2video.trace.capture import is_transformed


class GSM(Fusion):
    """Shift a learned, spatially gated share of every channel along T, half of the channels each way.

    Frames are `(B·T, C, H, W)`. With x_k the halves of the channels and g = tanh(Conv3d(ReLU(BN(x)))) one plane per
    half: y_k = g_k · x_k, r_k = x_k - y_k, out_k = shifted y_k + r_k (the first half takes the next frame's, the
    second the previous frame's), then the channels interleave within each half. The gate's convolution starts at
    zero. Names and shapes of the parameters follow the public checkpoints: `bn`, `conv3D`.

    Args:
        channels: C, a multiple of 4.
        padding: what the frame without a neighbour takes: `"zeros"` (published), `"replicate"` or `"circular"`.
        residual: leave the interleaving out, so that the zero gate makes a fresh module the identity. (A learned
            scale as in `GSF` would never learn behind a zero gate.) The state dict then holds a marker.

    Raises:
        InputError: channels that are no multiple of 4, or an unknown padding.

    Example:
        >>> GSM(8, residual=True)(torch.ones(6, 8, 4, 5), T=3).shape
        torch.Size([6, 8, 4, 5])
    """

    placement: ClassVar[Placement] = "after"
    min_channels: ClassVar[int] = 4

    def __init__(self, channels: int, *, padding: Padding = "zeros", residual: bool = False) -> None:
        check_padding(padding)
        super().__init__(channels, residual=residual)
        self.padding: Padding = padding
        self.bn = nn.BatchNorm2d(channels)
        self.conv3D = nn.Conv3d(channels, 2, 3, padding=1, groups=2)
        nn.init.zeros_(self.conv3D.weight)
        assert self.conv3D.bias is not None
        nn.init.zeros_(self.conv3D.bias)
        if residual:
            # Without a marker both forms have the same keys, and a checkpoint of one would load into the other.
            self.register_buffer("residual_form", torch.ones((), dtype=torch.uint8))

    @classmethod
    def refusal(cls, channels: int, **options: Any) -> str | None:
        """Say why the channels do not split in two interleaved halves: no multiple of 4."""
        if channels >= cls.min_channels and channels % 4:
            return (
                f"GSM needs a multiple of 4 channels, got {channels}; leave the site out (sites=…) or use GSF, which "
                "acts on a share that is one"
            )
        return super().refusal(channels)

    def fuse(self, frames: Tensor, T: int, parts: int) -> Tensor:
        """Gate, shift and add frames `(B·T·parts, C, H, W)`."""
        shift = Shift(T, parts, self.padding)
        if is_served(self, frames, shift, self.conv3D.weight):
            return inferred_gsm(frames, self.bn, self.conv3D, T, interleaved=not self.residual)
        gate = temporal_gate(frames, self.bn, self.conv3D, T, parts).to(frames.dtype)
        fuse = plain_gate_shift if is_transformed() else written_gate_shift
        return fuse(frames, gate, shift, not self.residual)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        refuse_other_form(self, state_dict, prefix, marker="residual_form", errors=args[-1])
        super()._load_from_state_dict(state_dict, prefix, *args)
