"""The geometric ops: the matrix of each at every power.

Convention: pixel centres; the centre of the image is the origin; x to the right, y down. A matrix maps a point of the
reference image to where its content stands in the frame: positive translate moves the content right / down, positive
rotate turns it counter-clockwise as seen on the screen, scale > 1 enlarges it. Power s of an op is the op applied s
times (s may be negative or a fraction).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from image2video.clip.ops.op import Op


def _affine(a: Tensor, b: Tensor, tx: Tensor, c: Tensor, d: Tensor, ty: Tensor) -> Tensor:
    zero, one = torch.zeros_like(a), torch.ones_like(a)
    return torch.stack([a, b, tx, c, d, ty, zero, zero, one], dim=-1).unflatten(-1, (3, 3))


def _translate_x(magnitude: Tensor, steps: Tensor, height: int, width: int) -> Tensor:
    zero, one = torch.zeros_like(steps), torch.ones_like(steps)
    return _affine(one, zero, steps * magnitude * width, zero, one, zero)


def _translate_y(magnitude: Tensor, steps: Tensor, height: int, width: int) -> Tensor:
    zero, one = torch.zeros_like(steps), torch.ones_like(steps)
    return _affine(one, zero, zero, zero, one, steps * magnitude * height)


def _rotate(magnitude: Tensor, steps: Tensor, height: int, width: int) -> Tensor:
    angle = steps * magnitude * (math.pi / 180)
    cos, sin, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(steps)
    return _affine(cos, sin, zero, -sin, cos, zero)


def _scale(magnitude: Tensor, steps: Tensor, height: int, width: int) -> Tensor:
    factor, zero = torch.pow(magnitude, steps), torch.zeros_like(steps)
    return _affine(factor, zero, zero, zero, factor, zero)


def _shear_x(magnitude: Tensor, steps: Tensor, height: int, width: int) -> Tensor:
    zero, one = torch.zeros_like(steps), torch.ones_like(steps)
    return _affine(one, steps * torch.tan(magnitude * (math.pi / 180)), zero, zero, one, zero)


def _shear_y(magnitude: Tensor, steps: Tensor, height: int, width: int) -> Tensor:
    zero, one = torch.zeros_like(steps), torch.ones_like(steps)
    return _affine(one, zero, zero, steps * torch.tan(magnitude * (math.pi / 180)), one, zero)


def _identity(magnitude: Tensor, steps: Tensor, height: int, width: int) -> Tensor:
    zero, one = torch.zeros_like(steps), torch.ones_like(steps)
    return _affine(one, zero, zero, zero, one, zero)


GEOMETRIC_OPS: tuple[Op, ...] = (
    Op("translate_x", "of the width", 0.06, -1, 1, 0, _translate_x),
    Op("translate_y", "of the height", 0.06, -1, 1, 0, _translate_y),
    Op("rotate", "degrees", 10, -180, 180, 0, _rotate),
    Op("scale", "(factor)", 1.1, 0.25, 4, 1, _scale),
    Op("shear_x", "degrees", 5, -80, 80, 0, _shear_x, open_ends=True),
    Op("shear_y", "degrees", 5, -80, 80, 0, _shear_y, open_ends=True),
    Op("identity", "(takes none)", 0, 0, 0, 0, _identity),
)
