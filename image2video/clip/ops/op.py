"""What an op is: a named transformation with one magnitude per step, which moves pixels or changes their colours."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from image2video.errors import InputError, InputTypeError

MatrixFunction = Callable[[Tensor, Tensor, int, int], Tensor]
PixelFunction = Callable[[Tensor, float, float], Tensor]
GRADIENTS: tuple[str, ...] = ("exact", "straight_through")
CELL = "cell"
"""The unit of shifts by cells of a map; magnitudes in the op's own unit have the unit `""`."""


@dataclass(frozen=True)
class Op:
    """A named transformation with one magnitude per step: geometric (it has a `matrix`) or photometric (`pixels`).

    Attributes:
        name: lower-case letters, digits and underscores; what genotype texts call it.
        unit: the unit of the magnitude per step, as shown to users ("degrees").
        default: the magnitude of one step that search spaces start from.
        low: the smallest magnitude allowed.
        high: the largest magnitude allowed.
        neutral: the magnitude at which the op does nothing.
        matrix: of a geometric op. `matrix(magnitude, steps, height, width)` with a 0-d `magnitude` and `steps` `(S,)`
            of one dtype and device gives `(S, 3, 3)`: the op at power s in centred pixel coordinates, last row
            (0, 0, 1), identity at s = 0, differentiable in the magnitude.
        open_ends: whether `low` and `high` themselves are excluded.
        pixels: of a photometric op. `pixels(images, magnitude, step)` with images `(N, C, H, W)` in 0 … 1, float32 or
            float64, and two plain numbers gives new images of the same shape and dtype in 0 … 1: each image by itself,
            itself at step 0 and at the neutral magnitude. It leaves its argument as it is.
        gradient: of a photometric op in its images. `exact`: that of `pixels`. `straight_through`: that of the
            identity, for ops whose own gradient is zero or says nothing (Bengio et al., 2013, arXiv 1308.3432).
        mirrors: of a geometric op that mirrors images: the axes, -1 for left and right, -2 for top and bottom. Odd
            powers mirror without any interpolation, even powers do nothing; such an op has no magnitude to choose:
            `default`, `low` and `high` are 1, `neutral` is 0.
        shifts: of a geometric op that shifts images by a fraction of their size: the axis, -1 to the right by a
            fraction of the width, -2 down by one of the height. Its `neutral` is 0. It takes magnitudes in cells too.
    """

    name: str
    unit: str
    default: float
    low: float
    high: float
    neutral: float
    matrix: MatrixFunction | None = None
    open_ends: bool = False
    pixels: PixelFunction | None = None
    gradient: str = "exact"
    mirrors: tuple[int, ...] = ()
    shifts: int | None = None

    @property
    def geometric(self) -> bool:
        """Whether the op moves pixels by a matrix; otherwise it changes colours and leaves pixels in their place."""
        return self.matrix is not None

    def apply(self, images: Tensor, magnitude: float, step: float) -> Tensor:
        """Apply a photometric op; the gradient is as `self.gradient` says.

        Values beyond 0 … 1 are clamped first. Half precision is computed in float32, under autocast too.

        Args:
            images: `(N, C, H, W)` in 0 … 1.
            magnitude: of one step.
            step: the power; at 0 and at the neutral magnitude the images come back as they are.

        Returns:
            Images of the same shape and dtype in 0 … 1.

        Raises:
            InputError: a geometric op, or a number of channels that the op cannot treat.
        """
        if self.pixels is None:
            raise InputError(f"op {self.name!r} is geometric; expected a photometric one, which has pixels to apply")
        if step == 0 or magnitude == self.neutral:
            return images
        with full_precision(images.device):
            unit = images.to(working_dtype(images))
            if self.gradient == "exact":
                out = self.pixels(unit.clamp(0, 1), magnitude, step)
            else:
                with torch.no_grad():
                    value = self.pixels(unit.detach().clamp(0, 1), magnitude, step)
                out = _StraightThrough.apply(unit, value)
        return out.to(images.dtype)

    def contains(self, magnitude: float) -> bool:
        """Say whether a magnitude is in the range of the op.

        Args:
            magnitude: of one step.

        Returns:
            True where it is allowed; NaN is not.
        """
        if self.open_ends:
            return self.low < magnitude < self.high
        return self.low <= magnitude <= self.high

    def check(self, magnitude: object, unit: object = "") -> float:
        """Check a magnitude.

        Args:
            magnitude: of one step, as a user gave it.
            unit: `""`, or `"cell"` for cells of a map. What range a number of cells lies in depends on the map.

        Returns:
            The magnitude as a float.

        Raises:
            InputError: a number that is not finite or out of range, or a unit that the op does not have.
            InputTypeError: anything but a number.
        """
        if unit != "":
            self._check_unit(unit)
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
        if self.mirrors and value != self.default:
            raise InputError(f"{self.name} mirrors the image and takes no magnitude, got {value:g}; write {self.name}")
        if unit == "" and not self.contains(value):
            raise InputError(f"the magnitude of {self.name} must lie in {self.range_text}, got {value:g}")
        return value + 0.0  # -0.0 becomes 0.0, so that equal genotypes print alike

    def _check_unit(self, unit: object) -> None:
        """Raise `InputError` for a unit of magnitudes that the op does not have."""
        if unit != CELL:
            raise InputError(f"the unit of a magnitude must be '' (that of the op) or {CELL!r}, got {unit!r:.80}")
        if self.shifts is None:
            raise InputError(
                f"{self.name} has no magnitude in cells, which count shifts (translate_x, translate_y); give it in its "
                f"own unit: {self.range_text}"
            )

    @property
    def range_text(self) -> str:
        """The allowed range with its unit, for messages: "-180 … 180 degrees"."""
        ends = " (ends excluded)" if self.open_ends else ""
        return f"{self.low:g} … {self.high:g} {self.unit}{ends}"


def working_dtype(images: Tensor) -> torch.dtype:
    """Return the dtype that images are computed in: float64 stays, everything else is float32."""
    return torch.float64 if images.dtype == torch.float64 else torch.float32


def full_precision(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Switch autocast off in a context, on devices that have it."""
    # Dynamo of torch 2.11 cannot ask; of the devices that it compiles for, all but meta have autocast.
    dynamo = torch.compiler.is_dynamo_compiling()
    if device.type != "meta" if dynamo else torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()


class _StraightThrough(torch.autograd.Function):
    """Returns `value` and passes the gradient on to `images` (the straight-through estimator)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(images: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
