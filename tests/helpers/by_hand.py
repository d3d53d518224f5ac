"""The geometry of `translate_x(a) > rotate(b)` written out anew: what the video segmentors are compared with."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

SHIFT, ANGLE = 0.06, 9.0
CHAIN = f"translate_x({SHIFT}) > rotate({ANGLE:g})"
STEPS = {
    "from_zero": (0, 1, 2),
    "ramp": (1, 2, 3),
    "centred": (-1, 0, 1),
    "mirror": (1, 0, 1),
}
"""The powers of three frames under each schedule."""


def warped(images: Tensor, step: float) -> Tensor:
    """Content moved right by SHIFT of the width, then turned counter-clockwise by ANGLE, each `step` times over."""
    height, width = images.shape[-2:]
    y, x = _centred(height, width)
    # What stands at (x, y) stood, before the turn, at the point turned back (clockwise, y down), and before that left.
    angle = math.radians(ANGLE * step)
    back_x, back_y = x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)
    return read(images, back_x - SHIFT * width * step, back_y)


def unwarped(maps: Tensor, step: float) -> Tensor:
    """The way back: what stands at (x, y) in the image stands in the frame where the content has gone."""
    height, width = maps.shape[-2:]
    y, x = _centred(height, width)
    x = x + SHIFT * width * step
    angle = math.radians(ANGLE * step)
    return read(maps, x * math.cos(angle) + y * math.sin(angle), -x * math.sin(angle) + y * math.cos(angle))


def mean_over(maps: list[Tensor], steps: tuple[float, ...]) -> Tensor:
    """Σ unwarp / Σ mask of maps `(B, K, h, w)`, one for each frame; where no frame shows a pixel, NaN."""
    total = sum(unwarped(one, step) for one, step in zip(maps, steps, strict=True))
    cover = sum(unwarped(torch.ones_like(maps[0]), step) for step in steps)
    return torch.where(cover >= 1e-3, total / cover, torch.nan)


def read(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Bilinear values at centred pixel positions; zeros outside."""
    height, width = images.shape[-2:]
    left, top = (x + (width - 1) / 2).floor(), (y + (height - 1) / 2).floor()
    right_share, lower_share = x + (width - 1) / 2 - left, y + (height - 1) / 2 - top
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    total = torch.zeros_like(images)
    for down, row_share in ((0, 1 - lower_share), (1, lower_share)):
        for across, column_share in ((0, 1 - right_share), (1, right_share)):
            rows = (top + down + 1).clamp(0, height + 1).long()
            columns = (left + across + 1).clamp(0, width + 1).long()
            total = total + padded[..., rows, columns] * (row_share * column_share).to(images.dtype)
    return total


def _centred(height: int, width: int) -> tuple[Tensor, Tensor]:
    ys = torch.arange(height, dtype=torch.float64) - (height - 1) / 2
    xs = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    return y, x
