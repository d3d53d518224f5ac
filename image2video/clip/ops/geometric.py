"""The geometric ops: the matrix of each at every power.

Convention: pixel centres; the centre of the image is the origin; x to the right, y down. A matrix maps a point of the
reference image to where its content stands in the frame: positive translate moves the content right / down, positive
rotate turns it counter-clockwise as seen on the screen, scale > 1 enlarges it. Power s of an op is the op applied s
times (s may be negative or a fraction; a flip takes whole powers alone).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from image2video.clip.ops.op import Op

Entry = Tensor | float


def _affine(
    steps: Tensor, *, a: Entry = 1, b: Entry = 0, tx: Entry = 0, c: Entry = 0, d: Entry = 1, ty: Entry = 0
) -> Tensor:
    """Return the matrices [[a, b, tx], [c, d, ty], [0, 0, 1]], one per step; numbers hold for all steps."""
    entries = (a, b, tx, c, d, ty, 0, 0, 1)
    columns = [entry if isinstance(entry, Tensor) else torch.full_like(steps, entry) for entry in entries]
    return torch.stack(columns, dim=-1).unflatten(-1, (3, 3))


def _translate_x(magnitude: Tensor, steps: Tensor, height: int, width: int) -> Tensor:
    return _affine(steps, tx=steps * magnitude * width)


def _translate_y(magnitude: Tensor, steps: Tensor, height: int, width: int) -> Tensor:
    return _affine(steps, ty=steps * magnitude * height)


def _rotate(magnitude: Tensor, steps: Tensor, height: int, width: int) -> Tensor:
    angle = steps * magnitude * (math.pi / 180)
    cos, sin = torch.cos(angle), torch.sin(angle)
    return _affine(steps, a=cos, b=sin, c=-sin, d=cos)


def _scale(magnitude: Tensor, steps: Tensor, height: int, width: int) -> Tensor:
    factor = torch.pow(magnitude, steps)
    return _affine(steps, a=factor, d=factor)


def _shear_x(magnitude: Tensor, steps: Tensor, height: int, width: int) -> Tensor:
    return _affine(steps, b=steps * torch.tan(magnitude * (math.pi / 180)))


def _shear_y(magnitude: Tensor, steps: Tensor, height: int, width: int) -> Tensor:
    return _affine(steps, c=steps * torch.tan(magnitude * (math.pi / 180)))


def _flip_x(magnitude: Tensor, steps: Tensor, height: int, width: int) -> Tensor:
    return _affine(steps, a=_sign(steps))


def _flip_y(magnitude: Tensor, steps: Tensor, height: int, width: int) -> Tensor:
    return _affine(steps, d=_sign(steps))


def _sign(steps: Tensor) -> Tensor:
    """Return -1 at odd powers and 1 at even ones; between two powers, that of the lower one."""
    # Genotypes refuse powers between. The matrix can be inverted there too: a mirror image has no halfway.
    return 1 - 2 * torch.remainder(steps.floor(), 2)


def _identity(magnitude: Tensor, steps: Tensor, height: int, width: int) -> Tensor:
    return _affine(steps)


GEOMETRIC_OPS: tuple[Op, ...] = (
    Op("translate_x", "of the width", 0.06, -1, 1, 0, _translate_x, shifts=-1),
    Op("translate_y", "of the height", 0.06, -1, 1, 0, _translate_y, shifts=-2),
    Op("rotate", "degrees", 10, -180, 180, 0, _rotate),
    Op("scale", "(factor)", 1.1, 0.25, 4, 1, _scale),
    Op("shear_x", "degrees", 5, -80, 80, 0, _shear_x, open_ends=True),
    Op("shear_y", "degrees", 5, -80, 80, 0, _shear_y, open_ends=True),
    Op("flip_x", "(takes none)", 1, 1, 1, 0, _flip_x, mirrors=(-1,)),
    Op("flip_y", "(takes none)", 1, 1, 1, 0, _flip_y, mirrors=(-2,)),
    Op("identity", "(takes none)", 0, 0, 0, 0, _identity),
)
