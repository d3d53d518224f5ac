"""Averaging over copies whose ranges of motion are learned with the weights: no fusion, no images held out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from image2video.clip import clip_to_frames, frames_to_clip
from image2video.geometry import chain_matrices
from image2video.sampling import warp

_OPS = ("translate_x", "translate_y", "rotate", "scale", "shear_x")
_UNITS = (0.1, 0.1, 15.0, 0.2, 10.0)
_START, _WIDEN = 0.1, 0.02


class LearnedAveraging(nn.Module):
    """A network that predicts by the mean over T copies, moved at random within ranges that are learned.

    As Augerino (Benton et al., NeurIPS 2020): the width of every op's range is a parameter of the training loss, and a
    bonus for wide ranges keeps them from collapsing. Ours differs in composing the ops one after the other instead of
    adding their generators, and in drawing the same T copies for every image in evaluation. Widths are in units of
    0.1 of the side, 15 degrees, 20 % and 10 degrees.

    Args:
        backbone: images `(B, C, H, W)` -> logits `(B, K)`.
        T: copies per image.
        widen: how much the loss falls per unit of every width.
        clip: what other arms' clips have and this one has no use for.

    """

    def __init__(self, backbone: nn.Module, *, T: int, widen: float = _WIDEN, **clip: Any) -> None:
        super().__init__()
        self.backbone, self.T = backbone, T
        self.width = nn.Parameter(torch.full((len(_OPS),), _START))
        # The bonus has a constant gradient, so no training loop needs to know of it.
        self.width.register_hook(lambda gradient: gradient - widen)
        self.fixed: Tensor
        self.register_buffer("fixed", torch.rand(T, len(_OPS), generator=torch.Generator().manual_seed(0)) * 2 - 1)

    def forward(self, images: Tensor) -> Tensor:
        """The mean logits of T copies."""
        draws = torch.rand_like(self.fixed) * 2 - 1 if self.training else self.fixed
        H, W = images.shape[-2:]
        moved = draws * self.width * torch.tensor(_UNITS, device=self.width.device)
        steps = torch.ones(1, dtype=torch.float64)
        matrices = []
        for row in moved.double().cpu():
            magnitudes = torch.stack([v.exp() if op == "scale" else v for op, v in zip(_OPS, row, strict=True)])
            matrices.append(chain_matrices(_OPS, magnitudes, steps, H, W)[0])
        clip = warp(images, torch.stack(matrices))
        return frames_to_clip(self.backbone(clip_to_frames(clip)), self.T).mean(1)

    def no_weight_decay(self) -> set[str]:
        """The widths: decay would shrink them."""
        return {"width"}
