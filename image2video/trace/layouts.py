"""The layout of a tensor at a hook, read from the names of its dimensions."""

from __future__ import annotations

from dataclasses import dataclass

from image2video.trace.axes import Atom, Axes, Dim, kind_of, size_of
from image2video.trace.graph import Graph
from image2video.trace.layout import Layout
from image2video.trace.recorder import Value
from image2video.trace.scale import Scale
from image2video.trace.token_grid import TokenGrid
from image2video.trace.trace import IMAGES

# Exclusive: with more tokens left over, the map is not the one that the sequence comes from.
_MOST_PREFIX_TOKENS = 16

Scales = tuple[Scale | None, Scale | None]
"""Of rows and columns."""
_NO_SCALES: Scales = (None, None)


@dataclass(frozen=True)
class Placed:
    """What is known of a tensor: its layout, channels, shape for one image, rows per frame, and its tokens' grid."""

    layout: Layout
    channels: int
    shape: tuple[int, ...]
    parts: int
    grid: TokenGrid | None = None


def placed(graph: Graph, value: int, hint: int | None = None) -> Placed | str:
    """Return the layout of a value, or the reason why no fusion can use it.

    Args:
        graph: the traced forward.
        value: index of the tensor's value.
        hint: the channel dimension by convention (1 for convolutions, -1 for matrix products). It decides only where
            the trace lost the names of the dimensions.
    """
    tensor = graph.values[value]
    shape, axes = tensor.shape, tensor.axes
    if axes is None or len(shape) < 2:
        return f"its tensor has shape {shape}, which holds no frames and channels"
    parts = _parts(axes[0])
    if parts is None or not _frame_major(axes):
        return (
            f"its tensor has shape {shape} for {IMAGES} images, and the frames are not the outermost part of its "
            "leading dimension"
        )
    channel_dim = _channel_dim(axes, hint)
    if channel_dim is None:
        return f"its tensor has shape {shape} for {IMAGES} images, and the trace does not tell its channels"
    layout, scales = _layout(graph, tensor, axes, channel_dim)
    grid = None
    if layout.grid is not None:
        grid = _token_grid(graph, layout.grid, scales, parts)
    return Placed(layout, shape[channel_dim], (shape[0] // IMAGES, *shape[1:]), parts, grid)


def map_grid(graph: Graph, value: int, layout: Layout) -> TokenGrid | None:
    """Return rows and columns of a map and how they follow from the image; None where they are not the image's own.

    Args:
        graph: the traced forward.
        value: index of the map's value.
        layout: of the map; `layout.spatial` is `"map"`.
    """
    tensor = graph.values[value]
    if tensor.axes is None:
        return None
    first = 2 if layout.channel_dim == 1 else 1
    (rows, columns), (height, width) = tensor.axes[first : first + 2], tensor.shape[first : first + 2]
    # A side of one place has no atom.
    if not (height == 1 or _is_axis(rows, "h")) or not (width == 1 or _is_axis(columns, "w")):
        return None
    scales = _scales(rows[0], columns[0]) if rows and columns else _NO_SCALES
    return _token_grid(graph, (height, width), scales, 1)


def frames_outermost(graph: Graph, value: int) -> bool:
    """Whether the frames are the outermost part of a value, as far as the trace tells."""
    axes = graph.values[value].axes
    return not axes or _frame_major(axes)


def _frame_major(axes: Axes) -> bool:
    """Whether the frames are the outermost part of dimension 0, and in no other dimension."""
    return _parts(axes[0]) is not None and not any(atom.kind == "batch" for dim in axes[1:] for atom in dim)


def _parts(leading: Dim) -> int | None:
    """Count the rows per frame; None where the frames are not the outermost part of the leading dimension."""
    if not leading or leading[0].kind != "batch" or leading[0].size != IMAGES:
        return None
    rest = leading[1:]
    if any(atom.kind == "batch" for atom in rest):
        return None
    return size_of(rest)


def _channel_dim(axes: Axes, hint: int | None) -> int | None:
    """Find the channel dimension, 1 or -1; None where the names do not tell."""
    last = len(axes) - 1
    ends = [1] if last == 1 else [1, last]
    named = [dim for dim in ends if kind_of(axes[dim]) == "channel"]
    if len(named) == 1:
        return -1 if named[0] == last else 1
    if not named and hint is not None:
        hinted = hint % len(axes)
        if hinted in ends and kind_of(axes[hinted]) == "unknown":
            return hint
    return None


def _token_grid(graph: Graph, grid: tuple[int, int], scales: Scales, parts: int) -> TokenGrid:
    """Return a grid and how it follows from the image; scales that do not give the traced grid are left out."""
    image = graph.values[0].shape[2], graph.values[0].shape[3]  # The first value of a trace is the images.
    rows, columns = scales
    known = rows is not None and columns is not None
    # Of windows, the scales tell the size of the whole map.
    if known and parts == 1 and grid not in TokenGrid((0, 0), grid, rows, columns).candidates(image, 1):
        known = False
    return TokenGrid(image, grid, rows if known else None, columns if known else None, parts)


def _layout(graph: Graph, tensor: Value, axes: Axes, channel_dim: int) -> tuple[Layout, Scales]:
    """Name what the dimensions beside batch and channels are: a map, tokens (with the scales), or nothing spatial."""
    others = axes[2:] if channel_dim == 1 else axes[1:-1]
    sizes = tensor.shape[2:] if channel_dim == 1 else tensor.shape[1:-1]
    if len(others) == 1:
        return _tokens(graph, others[0], sizes[0], channel_dim)
    if len(others) == 2 and _is_map(others, channel_dim):
        return Layout(channel_dim, "map"), _NO_SCALES
    return Layout(channel_dim, "none"), _NO_SCALES


def _is_map(others: Axes, channel_dim: int) -> bool:
    """Whether two dimensions are rows and columns."""
    rows, columns = others
    if _mixed(rows) or _mixed(columns):
        return False
    if _is_sequence(rows) and _is_sequence(columns):  # attention: every token against every other
        return False
    if channel_dim == 1:  # Convolutions say so: what lies behind their channels is a map.
        return True
    single = len(rows) <= 1 and len(columns) <= 1
    return single and _axis(rows) != "w" and _axis(columns) != "h"


def _is_sequence(dim: Dim) -> bool:
    """Whether a dimension holds tokens: places of both axes, or places that others were put in front of."""
    return len(dim) > 1 or _axis(dim) == "cat"


def _mixed(dim: Dim) -> bool:
    """Whether a dimension holds more than positions."""
    return any(atom.kind in ("channel", "batch") for atom in dim)


def _axis(dim: Dim) -> int | str | None:
    """Return the axis of a dimension's outermost atom."""
    return dim[0].axis if dim else None


def _tokens(graph: Graph, dim: Dim, size: int, channel_dim: int) -> tuple[Layout, Scales]:
    """Read prefix and grid of a sequence; without them its positions are no row-major grid of the image."""
    if _mixed(dim) or any(atom.kind == "unknown" for atom in dim):
        return Layout(channel_dim, "none"), _NO_SCALES
    prefix = 0
    if len(dim) == 1 and dim[0].tail:
        prefix, dim = dim[0].prefix, dim[0].tail
    axes = [atom.axis for atom in dim]
    if axes == ["h", "w"]:
        return Layout(channel_dim, "tokens", prefix, (dim[0].size, dim[1].size)), _scales(*dim)
    # A side of one place has no atom, and the trace does not tell how it grows.
    if axes == ["h"]:
        return Layout(channel_dim, "tokens", prefix, (dim[0].size, 1)), _NO_SCALES
    if axes == ["w"]:
        return Layout(channel_dim, "tokens", prefix, (1, dim[0].size)), _NO_SCALES
    if len(dim) == 1 and isinstance(dim[0].axis, int):
        # Positions were mixed on the way (a product over tokens): a map of the trace may still tell the grid.
        found = _grid_of_map(graph, size)
        if found is not None:
            prefix, grid, scales = found
            return Layout(channel_dim, "tokens", prefix, grid), scales
    return Layout(channel_dim, "none"), _NO_SCALES


def _scales(rows: Atom, columns: Atom) -> Scales:
    """Return the scales of two atoms."""
    return rows.own_scale, columns.own_scale


def _grid_of_map(graph: Graph, size: int) -> tuple[int, tuple[int, int], Scales] | None:
    """Find the smallest prefix that leaves as many tokens as a map of the trace has places."""
    fitting: list[tuple[int, tuple[int, int], Scales]] = []
    for value in graph.values:
        if value.axes is None or len(value.axes) != 4:
            continue
        channels_first = kind_of(value.axes[1]) == "channel"
        rows, columns = value.axes[2:] if channels_first else value.axes[1:3]
        if not _is_axis(rows, "h") or not _is_axis(columns, "w"):
            continue
        grid = rows[0].size, columns[0].size
        prefix = size - grid[0] * grid[1]
        if 0 <= prefix < min(size, _MOST_PREFIX_TOKENS):
            fitting.append((prefix, grid, _scales(rows[0], columns[0])))
    return min(fitting, key=lambda found: found[:2], default=None)


def _is_axis(dim: Dim, axis: str) -> bool:
    """Whether a dimension is the rows or the columns of the image and nothing else."""
    return len(dim) == 1 and dim[0].kind == "position" and dim[0].axis == axis
