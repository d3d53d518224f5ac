"""UniformAugment's ops and draws, from its paper (LingChen et al., arXiv 2003.14348), on torchvision's functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F  # noqa: N812 (its usual name)

_GREY = 128


@dataclass(frozen=True)
class RangedOp:
    """An op and the range of its magnitude: `apply(image (C, H, W) uint8, magnitude) -> same`."""

    name: str
    low: float
    high: float
    apply: Callable[[Tensor, float], Tensor]


def _moved(image: Tensor, *, x: float = 0.0, y: float = 0.0, shear_x: float = 0.0, shear_y: float = 0.0) -> Tensor:
    shear = [math.degrees(math.atan(shear_x)), math.degrees(math.atan(shear_y))]
    return F.affine(image, angle=0.0, translate=[round(x), round(y)], scale=1.0, shear=shear, fill=[_GREY])


def _cutout(image: Tensor, share: float) -> Tensor:
    height, width = image.shape[-2:]
    side = round(share * min(height, width))
    if side == 0:
        return image
    top, left = (int(torch.randint(size - side + 1, ())) for size in (height, width))
    return F.erase(image, top, left, side, side, v=torch.tensor(_GREY, dtype=image.dtype))


UNIFORM_OPS: tuple[RangedOp, ...] = (
    RangedOp("shear_x", -0.3, 0.3, lambda image, m: _moved(image, shear_x=m)),
    RangedOp("shear_y", -0.3, 0.3, lambda image, m: _moved(image, shear_y=m)),
    RangedOp("translate_x", -0.45, 0.45, lambda image, m: _moved(image, x=m * image.shape[-1])),
    RangedOp("translate_y", -0.45, 0.45, lambda image, m: _moved(image, y=m * image.shape[-2])),
    RangedOp("rotate", -30, 30, lambda image, m: F.rotate(image, m, fill=[_GREY])),
    RangedOp("autocontrast", 0, 1, lambda image, m: F.autocontrast(image)),
    RangedOp("invert", 0, 1, lambda image, m: F.invert(image)),
    RangedOp("equalize", 0, 1, lambda image, m: F.equalize(image)),
    RangedOp("solarize", 0, 255, lambda image, m: F.solarize(image, m)),
    RangedOp("posterize", 4, 8, lambda image, m: F.posterize(image, round(m))),
    RangedOp("contrast", 0.1, 1.9, lambda image, m: F.adjust_contrast(image, m)),
    RangedOp("color", 0.1, 1.9, lambda image, m: F.adjust_saturation(image, m)),
    RangedOp("brightness", 0.1, 1.9, lambda image, m: F.adjust_brightness(image, m)),
    RangedOp("sharpness", 0.1, 1.9, lambda image, m: F.adjust_sharpness(image, m)),
    RangedOp("cutout", 0, 0.2, _cutout),
)
"""The ops and ranges of AutoAugment's search space without its SamplePairing, which mixes two images."""


@dataclass(frozen=True)
class UniformDraw:
    """One draw of UniformAugment: the op, whether it is applied, and its magnitude."""

    op: RangedOp
    applied: bool
    magnitude: float


def draw_uniform() -> UniformDraw:
    """An op uniformly, a probability p uniformly in 0 … 1, applied with p, at a magnitude uniform in its range.

    Draws from torch's global CPU generator.
    """
    op = UNIFORM_OPS[int(torch.randint(len(UNIFORM_OPS), ()))]
    probability, chance, place = torch.rand(3).tolist()
    return UniformDraw(op, chance < probability, op.low + place * (op.high - op.low))


@dataclass(frozen=True)
class UniformOps:
    """`ops` draws in a row on an image `(C, H, W)` uint8, C = 1 or 3; ground that comes in from outside is mid-grey."""

    ops: int

    def __call__(self, image: Tensor) -> Tensor:
        """The augmented image."""
        for _ in range(self.ops):
            drawn = draw_uniform()
            if drawn.applied:
                image = drawn.op.apply(image, drawn.magnitude)
        return image
