"""The mean of unwarped maps: their sum over the frames, divided by how much of every pixel the frames show."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

LEAST_COVER = 1e-3
"""Pixels with a smaller mask sum count as unseen."""


def divisor_of(cover: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a sum of unwarped maps is divided by, and where pixels are seen.

    `cover` is the sum of the valid masks. The divisor is the cover, and 1 at unseen pixels, so that no gradient becomes
    infinite there.
    """
    seen = cover >= LEAST_COVER
    return torch.where(seen, cover, 1.0), seen


def covered_mean(total: Tensor, cover: Tensor, fallback: Callable[[], Tensor] | None) -> Tensor:
    """Return Σ unwarp / Σ mask, given both sums, and the fallback's values at unseen pixels.

    Without a fallback the caller knows that every pixel is seen, as where a frame is the image itself.
    """
    divisor, seen = divisor_of(cover)
    mean = total / divisor
    return mean if fallback is None else torch.where(seen, mean, fallback())
