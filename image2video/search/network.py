"""The network behind the cell: frames through the fused backbone, logits averaged over the frames."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from image2video.clip import clip_to_frames, frames_to_clip
from image2video.errors import InputError, InputTypeError
from image2video.fusion.config import FusionConfig
from image2video.fusion.registry import resolve_fusion
from image2video.inject import Injection, inject_, plan


class FrameNetwork(nn.Module):
    """A backbone whose frames mix at its sites, fed with a clip instead of an image.

    `(B, T, C, H, W)` -> logits `(B, K)`: the mean over T of the frames' logits (the paper's aggregation).

    Args:
        backbone: the backbone with its hooks, or a bare one where `fusion` is None (frames never mix).
        fusion: the injection that holds the fusions.
        channels_last: lay the frames out channels_last before the backbone.

    Raises (in forward):
        InputTypeError: the backbone returns anything but a tensor.
        InputError: the backbone returns another shape than `(B·T, K)`.

    """

    def __init__(self, backbone: nn.Module, fusion: Injection | None, *, channels_last: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.fusion = fusion
        self.channels_last = channels_last

    def forward(self, clip: Tensor) -> Tensor:
        """The averaged logits of a clip."""
        T = clip.shape[1]
        frames = clip_to_frames(clip)
        if self.channels_last:
            frames = frames.contiguous(memory_format=torch.channels_last)
        if self.fusion is None:
            logits = self.backbone(frames)
        else:
            with self.fusion.frames(T):
                logits = self.backbone(frames)
        check_logits(logits, frames.shape[0])
        return frames_to_clip(logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits, T).mean(1)


def check_logits(logits: object, rows: int) -> None:
    """Raise where `logits` are not a tensor `(rows, K)`: a search needs a classifier."""
    if not isinstance(logits, Tensor):
        raise InputTypeError(
            f"the backbone returned {type(logits).__name__}; a search needs a classifier that returns logits (B, K)"
        )
    if logits.ndim != 2 or logits.shape[0] != rows:
        raise InputError(
            f"the backbone returned shape {tuple(logits.shape)} for {rows} frames; a search needs logits ({rows}, K)"
        )


def build_network(
    backbone: nn.Module,
    fusion: str | FusionConfig,
    *,
    residual: bool,
    input_size: tuple[int, int, int],
    channels_last: bool = False,
) -> FrameNetwork:
    """A `FrameNetwork` around a copy of `backbone`; the backbone itself stays as it is.

    `input_size` is (C, H, W) of the images that the search will see. Raises what `plan` and `inject_` raise.
    """
    own = copy.deepcopy(backbone)
    config = resolve_fusion(fusion)
    if config.name == "none":
        return FrameNetwork(own, None, channels_last=channels_last)
    sites = plan(own, fusion=config, input_size=input_size)
    return FrameNetwork(own, inject_(own, sites, residual=residual), channels_last=channels_last)
