"""One step of a genotype's chain, and what chains of them come to: their runs, their matrices."""

from __future__ import annotations

import functools
import itertools
import types
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from image2video.clip.genotype_text import format_magnitude
from image2video.clip.matrices import chain_matrices
from image2video.clip.ops.op import Op
from image2video.clip.ops.registry import get_op
from image2video.clip.slices import Shift, whole
from image2video.errors import InputError
from image2video.trace.capture import constant, goes_into_export

_TINY = 1e-12


@dataclass(frozen=True)
class Transform:
    """One op of a chain with its magnitude per step, in the op's unit.

    Shifts may have theirs in cells instead.

    Attributes:
        op: the name of a registered op.
        magnitude: finite and within the range of the op.
        unit: `""` for the op's own unit, or `"cell"` for cells of the map where the clip begins: pixels, where that is
            the image. Ops that shift have it, translate_x and translate_y.

    Raises:
        InputError: an unknown op, another magnitude, or a unit that the op does not have.
        InputTypeError: wrong types.
    """

    op: str
    magnitude: float
    unit: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "magnitude", get_op(self.op).check(self.magnitude, self.unit))

    @property
    def is_identity(self) -> bool:
        """Whether the transform does nothing, as `translate_x(0)`, `scale(1)` and `identity` do."""
        return self.magnitude == get_op(self.op).neutral

    @property
    def geometric(self) -> bool:
        """Whether it moves pixels; otherwise it changes colours."""
        return get_op(self.op).geometric

    def __str__(self) -> str:
        return self.op if get_op(self.op).mirrors else f"{self.op}({format_magnitude(self.magnitude, self.unit)})"

    def check_cells(self, height: int, width: int) -> None:
        """Check that a magnitude in cells is in the op's range on maps of a size.

        Args:
            height: of the maps, in cells.
            width: likewise.

        Raises:
            InputError: a shift that is too large; a magnitude in the op's own unit is none.
        """
        if not self.unit:
            return
        op, cells = get_op(self.op), width if shifts_across(self) else height
        if not op.contains(self.magnitude / cells):
            raise InputError(
                f"{self} is a shift by {abs(self.magnitude) / cells:.3g} of a map of {height}×{width} cells; it must "
                f"lie in {op.range_text}: take fewer cells, or let the clip begin where maps are larger"
            )

    def resolved(self, height: int, width: int) -> Transform:
        """Turn a magnitude in cells into one in the op's own unit.

        Args:
            height: of the maps whose cells are meant.
            width: likewise.

        Returns:
            The transform for maps of every size; itself where its magnitude is in the op's own unit. `InputError` as in
            `check_cells`.
        """
        if not self.unit:
            return self
        self.check_cells(height, width)
        return Transform(self.op, self.magnitude / (width if shifts_across(self) else height))


def shifts_across(transform: Transform) -> bool:
    """Whether a transform that shifts does so along the width; otherwise it is along the height."""
    return get_op(transform.op).shifts == -1


def split_runs(chain: Sequence[Transform]) -> list[tuple[Transform, ...]]:
    """Split a chain into maximal runs of geometric transforms, and single photometric ones between them."""
    runs: list[tuple[Transform, ...]] = []
    for geometric, items in itertools.groupby(chain, key=lambda transform: transform.geometric):
        if geometric:
            runs.append(tuple(items))
        else:
            runs += [(transform,) for transform in items]
    return runs


def run_matrices(
    run: Sequence[Transform],
    steps: Sequence[float],
    height: int,
    width: int,
    device: torch.device | str = "cpu",
    cells: tuple[int, int] | None = None,
) -> Tensor:
    """Compute the matrices of geometric transforms: `(S, 3, 3)` float64 on `device`, in centred pixels.

    `cells` (h, w) says how many cells the image has, for magnitudes in cells; by default they are its pixels. Where an
    exported graph has to compute the matrices itself, they are float32: runtimes and quantisers know no float64.
    """
    flip = next((t.op for t in run if get_op(t.op).mirrors), None)
    if flip is not None and any(step % 1 for step in steps):
        raise InputError(f"{flip} has whole powers alone, got the steps {list(steps)}; use a schedule of whole steps")
    if cells is None or not any(t.unit for t in run):
        cells = height, width
    sizes = (height, width, *cells)
    dtype = torch.float32 if goes_into_export(*sizes) else torch.float64
    return constant(_run_matrices, tuple(run), tuple(steps), *sizes, dtype, device)


def _run_matrices(
    run: Sequence[Transform],
    steps: Sequence[float],
    height: int,
    width: int,
    rows: int,
    columns: int,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Tensor:
    # The device is named, so that `with torch.device("meta")` around a constructor changes nothing here.
    magnitudes = torch.tensor([t.magnitude for t in run], dtype=dtype, device=device)
    if any(t.unit for t in run):
        # The sizes of a graph may be symbols, which divide tensors alone.
        parts = []
        for magnitude, transform in zip(magnitudes.unbind(), run, strict=True):
            cells = columns if shifts_across(transform) else rows
            parts.append(magnitude / cells if transform.unit else magnitude)
        magnitudes = torch.stack(parts)
    powers = torch.tensor(list(steps), dtype=dtype, device=device)
    return chain_matrices([t.op for t in run], magnitudes, powers, height, width)


def mirrored_axes(run: Sequence[Transform], step: float) -> tuple[int, ...] | None:
    """Tell which axes geometric transforms mirror at a power, where they do nothing else: no sampling is needed then.

    Returns `()` where they leave the image as it is, and None where they move it in another way.
    """
    if step == 0 or not run:
        return ()
    axes: set[int] = set()
    for transform in run:
        mirrors = get_op(transform.op).mirrors
        if not mirrors:
            return None
        if step % 2:
            axes ^= set(mirrors)
    return tuple(sorted(axes))


def whole_shift(run: Sequence[Transform], step: float, height: int, width: int) -> Shift | None:
    """Tell by how many whole cells geometric transforms shift maps of a size, where they mirror and shift alone.

    Returns None where frames at this power have to be sampled.
    """
    axes: set[int] = set()
    moved = {-1: 0.0, -2: 0.0}
    for transform in run if step else ():
        op = get_op(transform.op)
        if op.mirrors and not step % 1:
            for axis in op.mirrors if step % 2 else ():
                axes ^= {axis}
                moved[axis] = -moved[axis]
        elif op.shifts is not None:
            cells = 1 if transform.unit else (width if op.shifts == -1 else height)
            moved[op.shifts] += step * transform.magnitude * cells
        else:
            return None
    down, right = whole(moved[-2]), whole(moved[-1])
    return None if down is None or right is None else Shift(tuple(sorted(axes)), down, right)


def check_invertible(run: Sequence[Transform], steps: Sequence[float], text: str) -> None:
    """Raise `InputError` where geometric transforms cannot be inverted in numbers at one of these powers."""
    # Shifts change no determinant, and one in cells could be too large for numbers.
    judged = tuple((transform, get_op(transform.op)) for transform in run if not transform.unit)
    if all(isinstance(op.matrix, types.FunctionType) for _, op in judged):
        singular = _kept_singular(judged, tuple(steps))
    else:  # an object of the user's may have no hash, or other matrices tomorrow
        singular = _first_singular(judged, steps)
    if singular is not None:
        step, determinant = singular
        raise InputError(
            f"the chain {text!r:.200} is singular: at step {step:g} its matrix has determinant "
            f"{determinant:g} and cannot be inverted in numbers; use milder magnitudes, fewer ops or fewer frames"
        )


def _first_singular(run: Sequence[tuple[Transform, Op]], steps: Sequence[float]) -> tuple[float, float] | None:
    """Return the first power at which transforms cannot be inverted, with the determinant there."""
    # Whether a matrix is singular does not depend on the size of the image: any will do.
    linear = run_matrices([transform for transform, _ in run], steps, 224, 128)[:, :2, :2]
    dets = linear[:, 0, 0] * linear[:, 1, 1] - linear[:, 0, 1] * linear[:, 1, 0]
    sizes = linear.abs().amax(dim=(1, 2))
    # NaN fails every comparison.
    invertible = (sizes >= _TINY) & (sizes <= 1 / _TINY) & (dets.abs() >= _TINY * sizes**2)
    if invertible.all():
        return None
    first = int(invertible.logical_not().nonzero()[0])
    return steps[first], float(dets[first])


# A search makes the same chains again and again, and the matrices take most of their time. The ops are part of the
# key: a name may be registered again for another op.
_kept_singular = functools.lru_cache(4096)(_first_singular)
