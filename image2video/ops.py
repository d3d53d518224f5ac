"""The geometric ops: named transformations with one magnitude per step, and the registry that holds them.

Convention: pixel centres; the centre of the image is the origin; x to the right, y down. A matrix maps a point of the
reference image to where its content stands in the frame: positive translate moves the content right / down, positive
rotate turns it counter-clockwise as seen on the screen, scale > 1 enlarges it. Power s of an op is the op applied s
times (s may be negative or a fraction).
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from image2video.errors import InputError, InputTypeError

MatrixFunction = Callable[[Tensor, Tensor, int, int], Tensor]

_REGISTRY: dict[str, Op] = {}
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Op:
    """A named transformation with one magnitude per step.

    Attributes:
        name: lower-case letters, digits and underscores; what genotype texts call it.
        unit: the unit of the magnitude per step, as shown to users ("degrees").
        default: the magnitude of one step that search spaces start from.
        low: the smallest magnitude allowed.
        high: the largest magnitude allowed.
        neutral: the magnitude at which the op does nothing.
        matrix: `matrix(magnitude, steps, height, width)` with a 0-d `magnitude` and `steps` `(S,)` of one dtype and
            device gives `(S, 3, 3)`: the op at power s in centred pixel coordinates, last row (0, 0, 1), identity at
            s = 0, differentiable in the magnitude.
        open_ends: whether `low` and `high` themselves are excluded.
    """

    name: str
    unit: str
    default: float
    low: float
    high: float
    neutral: float
    matrix: MatrixFunction
    open_ends: bool = False

    def contains(self, magnitude: float) -> bool:
        """Whether the magnitude is allowed (NaN is not)."""
        if self.open_ends:
            return self.low < magnitude < self.high
        return self.low <= magnitude <= self.high

    def check(self, magnitude: object) -> float:
        """The magnitude as a float; raises `InputTypeError` for anything but a number, `InputError` out of range."""
        if isinstance(magnitude, bool) or not isinstance(magnitude, int | float):
            raise InputTypeError(
                f"the magnitude of {self.name} must be a number, got {magnitude!r:.80} ({type(magnitude).__name__})"
            )
        try:
            value = float(magnitude)
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise InputError(f"the magnitude of {self.name} must be finite, got {value}")
        if not self.contains(value):
            raise InputError(f"the magnitude of {self.name} must lie in {self.range_text}, got {value:g}")
        return value + 0.0  # -0.0 becomes 0.0, so that equal genotypes print alike

    @property
    def range_text(self) -> str:
        """The allowed range with its unit, for messages: "-180 … 180 degrees"."""
        ends = " (ends excluded)" if self.open_ends else ""
        return f"{self.low:g} … {self.high:g} {self.unit}{ends}"


def register_op(op: Op) -> Op:
    """Add an op to those that genotypes and search spaces know; returns it.

    Raises `InputTypeError` for anything but an `Op`, and `InputError` where the name is taken or malformed, the numbers
    contradict each other, or the matrix function breaks its contract (shape, last row, identity at step 0 and at the
    neutral magnitude).
    """
    if not isinstance(op, Op):
        raise InputTypeError(f"register_op takes an Op, got {type(op).__name__}")
    if not _NAME.fullmatch(op.name):
        raise InputError(f"op name {op.name!r} must be lower-case letters, digits and underscores, a letter first")
    if op.name in _REGISTRY:
        raise InputError(f"an op named {op.name!r} is registered already; choose another name")
    if not all(math.isfinite(value) for value in (op.default, op.low, op.high, op.neutral)):
        raise InputError(f"default, low, high and neutral of op {op.name!r} must be finite numbers")
    for label, value in (("default", op.default), ("neutral", op.neutral)):
        if not op.contains(value):
            raise InputError(f"{label} {value:g} of op {op.name!r} lies outside its range {op.range_text}")
    _check_matrix(op)
    _REGISTRY[op.name] = op
    return op


def get_op(name: str) -> Op:
    """The op of that name; raises `InputError` with the closest name and the list of all."""
    if not isinstance(name, str):
        raise InputTypeError(f"an op is named by a string, got {name!r:.80} of type {type(name).__name__}")
    if name not in _REGISTRY:
        close = difflib.get_close_matches(name[:100], _REGISTRY, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        shown = name if len(name) <= 40 else name[:40] + "…"
        raise InputError(f"unknown op {shown!r}{hint} Known ops: {', '.join(op_names())}")
    return _REGISTRY[name]


def op_names() -> tuple[str, ...]:
    """The names of all registered ops, in the order of registration."""
    return tuple(_REGISTRY)


def _check_matrix(op: Op) -> None:
    steps = torch.tensor([0.0, 1.0], dtype=torch.float64, device="cpu")
    eye = torch.eye(3, dtype=torch.float64, device="cpu")
    for label, value in (("default", op.default), ("neutral", op.neutral)):
        matrices = op.matrix(torch.tensor(value, dtype=torch.float64, device="cpu"), steps, 5, 7)
        if not isinstance(matrices, Tensor) or matrices.shape != (2, 3, 3) or matrices.dtype != torch.float64:
            got = (tuple(matrices.shape), matrices.dtype) if isinstance(matrices, Tensor) else type(matrices).__name__
            raise InputError(
                f"op {op.name!r}: matrix(magnitude, steps, height, width) must give (S, 3, 3) in the magnitude's "
                f"dtype; with 2 steps in float64 it gave {got}"
            )
        if not torch.equal(matrices[:, 2], eye[2].expand(2, 3)):
            raise InputError(f"op {op.name!r}: the last row of its matrices must be (0, 0, 1)")
        if not torch.allclose(matrices[0], eye, atol=1e-9):
            raise InputError(f"op {op.name!r}: at step 0 its matrix must be the identity")
        if label == "neutral" and not torch.allclose(matrices[1], eye, atol=1e-9):
            raise InputError(f"op {op.name!r}: at its neutral magnitude {value:g} its matrix must be the identity")


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


for _op in (
    Op("translate_x", "of the width", 0.06, -1, 1, 0, _translate_x),
    Op("translate_y", "of the height", 0.06, -1, 1, 0, _translate_y),
    Op("rotate", "degrees", 10, -180, 180, 0, _rotate),
    Op("scale", "(factor)", 1.1, 0.25, 4, 1, _scale),
    Op("shear_x", "degrees", 5, -80, 80, 0, _shear_x, open_ends=True),
    Op("shear_y", "degrees", 5, -80, 80, 0, _shear_y, open_ends=True),
    Op("identity", "(takes none)", 0, 0, 0, 0, _identity),
):
    register_op(_op)
