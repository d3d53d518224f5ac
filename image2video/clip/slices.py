"""Frames that are shifted by whole cells: slices of padded maps, without any interpolation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

TOLERANCE = 1e-9
"""How far, in cells, a shift may be from a whole number of them to count as one."""


class Shift(NamedTuple):
    """How a frame moves without interpolation: it is mirrored along axes, and then shifted by whole cells.

    Attributes:
        axes: as in `warp`: -1 mirrors left and right, -2 top and bottom.
        down: cells that the content moves down; negative is up.
        right: cells that it moves to the right; negative is left.
    """

    axes: tuple[int, ...]
    down: int
    right: int


def whole(cells: float) -> int | None:
    """Return a shift as a whole number of cells; None where it is none."""
    if not abs(cells) < math.inf:  # in a compiled graph math.isfinite is torch's
        return None
    nearest = round(cells)
    return nearest if abs(cells - nearest) <= TOLERANCE else None


def sliced_frames(maps: Tensor, shifts: Sequence[Shift], padding: str) -> list[Tensor]:
    """Make a frame `(B, C, h, w)` of the maps for each shift, bit for bit: views of one padded copy where possible.

    What comes in from outside is what `grid_sample` reads at the centres of cells there: zeros, the cell at the edge,
    or the maps mirrored at their edges, as often as the shift asks for. Differentiable in the maps.
    """
    moving = [shift for shift in shifts if shift.down or shift.right]
    if len(moving) < len(shifts):
        # The rest takes no part in the margins, nor does it ask for a size, which may be a symbol of a graph.
        moved = iter(sliced_frames(maps, moving, padding) if moving else [])
        return [next(moved) if shift.down or shift.right else mirror(maps, shift.axes) for shift in shifts]
    if not shifts:
        return []
    height, width = maps.shape[-2:]
    rows = [_first(shift.down, height, padding, mirrored=-2 in shift.axes) for shift in shifts]
    columns = [_first(shift.right, width, padding, mirrored=-1 in shift.axes) for shift in shifts]
    (above, below), (left, right) = _margins(rows), _margins(columns)
    wide = _padded(maps, (above, below, left, right), padding)
    frames = []
    for shift, row, column in zip(shifts, rows, columns, strict=True):
        frame = wide.narrow(-2, above + row, height).narrow(-1, left + column, width)
        frames.append(mirror(frame, shift.axes))
    return frames


def write_shifted(frame: Tensor, maps: Tensor, shift: Shift, padding: str) -> None:
    """Write what `sliced_frames` returns for one shift into `frame`, of the same shape; no gradient flows."""
    if padding != "zeros" or not (shift.down or shift.right):
        frame.copy_(sliced_frames(maps, [shift], padding)[0])
        return
    # The padded copy would be most of the work: the maps are copied to their place, and the rest is filled.
    maps = mirror(maps, shift.axes)
    for dim, cells in ((-2, shift.down), (-1, shift.right)):
        size = maps.shape[dim]
        outside = min(abs(cells), size)
        empty, filled = (0, outside) if cells > 0 else (size - outside, 0)
        frame.narrow(dim, empty, outside).zero_()
        frame = frame.narrow(dim, filled, size - outside)
        maps = maps.narrow(dim, outside - filled, size - outside)
    frame.copy_(maps)


def mirror(images: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Mirror images along axes, bit for bit; with no axes they are the same object."""
    return images.flip(axes) if axes else images


def _first(shift: int, size: int, padding: str, *, mirrored: bool) -> int:
    """Return the first cell that a frame reads along an axis of `size` cells, from -size to size.

    A mirrored frame reads the cells in turned order, from the last: a shift of its content reads on the other side.
    """
    first = shift if mirrored else -shift
    if padding == "reflection":  # the maps repeat after twice their size
        return (first + size) % (2 * size) - size
    return max(-size, min(first, size))


def _margins(firsts: Sequence[int]) -> tuple[int, int]:
    """Return how many cells are read before the first and after the last one."""
    return max(0, -min(firsts)), max(0, max(firsts))


def _padded(maps: Tensor, margins: tuple[int, int, int, int], padding: str) -> Tensor:
    """Continue maps beyond their edges by so many cells above, below, to the left and to the right."""
    above, below, left, right = margins
    if not any(margins):
        return maps
    if padding == "zeros":
        return nn.functional.pad(maps, (left, right, above, below))
    for dim, before, after in ((-2, above, below), (-1, left, right)):
        if before or after:
            parts = (_outside(maps, dim, before, padding, last=False), maps, _outside(maps, dim, after, padding))
            maps = torch.cat([part for part in parts if part is not None], dim=dim)
    return maps


def _outside(maps: Tensor, dim: int, count: int, padding: str, *, last: bool = True) -> Tensor | None:
    """Return `count` cells beyond the first or the last one along an axis; None for none."""
    if not count:
        return None
    size = maps.shape[dim]
    if padding == "reflection":
        return maps.narrow(dim, size - count if last else 0, count).flip(dim)
    edge = maps.narrow(dim, size - 1 if last else 0, 1)
    return edge.expand(*(count if axis == maps.ndim + dim else -1 for axis in range(maps.ndim)))
