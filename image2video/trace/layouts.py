"""The layout of a tensor at a hook, read from the names of its dimensions."""

from __future__ import annotations

from dataclasses import dataclass

from image2video.trace.axes import Atom, Axes, Dim, kind_of
from image2video.trace.graph import Graph
from image2video.trace.layout import Layout
from image2video.trace.recorder import Value
from image2video.trace.trace import IMAGES


@dataclass(frozen=True)
class Placed:
    """What is known of a tensor: its layout, channels, shape for one image, and rows per frame."""

    layout: Layout
    channels: int
    shape: tuple[int, ...]
    parts: int


def placed(graph: Graph, value: int, hint: int | None = None) -> Placed | str:
    """Return the layout of a value, or the reason why it has none that a fusion could use.

    Args:
        graph: the traced forward.
        value: index of the tensor's value.
        hint: the channel dimension by convention (1 for convolutions, -1 for matrix products), which decides only
            where the trace lost the names of the dimensions.
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
    layout = _layout(graph, tensor, axes, channel_dim)
    return Placed(layout, shape[channel_dim], (shape[0] // IMAGES, *shape[1:]), parts)


def frames_outermost(graph: Graph, value: int) -> bool:
    """Whether the frames are the outermost part of a value, as far as the trace tells."""
    axes = graph.values[value].axes
    return not axes or _frame_major(axes)


def _frame_major(axes: Axes) -> bool:
    return _parts(axes[0]) is not None and not any(atom.kind == "batch" for dim in axes[1:] for atom in dim)


def _parts(leading: Dim) -> int | None:
    """Rows per frame, where the leading dimension is frame-major."""
    if not leading or leading[0].kind != "batch" or leading[0].size != IMAGES:
        return None
    rest = leading[1:]
    if any(atom.kind == "batch" for atom in rest):
        return None
    size = 1
    for atom in rest:
        size *= atom.size
    return size


def _channel_dim(axes: Axes, hint: int | None) -> int | None:
    ends = [1] if len(axes) == 2 else [1, len(axes) - 1]
    named = [d for d in ends if kind_of(axes[d]) == "channel"]
    if len(named) == 1:
        return -1 if named[0] == len(axes) - 1 else 1
    unnamed = [d for d in ends if kind_of(axes[d]) == "unknown"]
    if not named and hint is not None and hint % len(axes) in unnamed:
        return hint
    return None


def _layout(graph: Graph, tensor: Value, axes: Axes, channel_dim: int) -> Layout:
    others = axes[2:] if channel_dim == 1 else axes[1:-1]
    sizes = tensor.shape[2:] if channel_dim == 1 else tensor.shape[1:-1]
    if len(others) == 1:
        return _tokens(graph, others[0], sizes[0], channel_dim)
    if len(others) == 2 and _is_map(others, channel_dim):
        return Layout(channel_dim, "map")
    return Layout(channel_dim, "none")


def _is_map(others: Axes, channel_dim: int) -> bool:
    """Whether two dimensions are rows and columns; behind channels in dimension 1, convolutions say so."""
    rows, columns = others
    if channel_dim == 1:
        return not _mixed(rows) and not _mixed(columns)
    single = len(rows) <= 1 and len(columns) <= 1
    return single and _axis(rows) != "w" and _axis(columns) != "h" and not _mixed(rows) and not _mixed(columns)


def _mixed(dim: Dim) -> bool:
    return any(atom.kind in ("channel", "batch") for atom in dim)


def _axis(dim: Dim) -> int | str | None:
    return dim[0].axis if dim else None


def _tokens(graph: Graph, dim: Dim, size: int, channel_dim: int) -> Layout:
    if _mixed(dim) or any(atom.kind == "unknown" for atom in dim):
        return Layout(channel_dim, "none")
    prefix = 0
    if len(dim) == 1 and dim[0].tail:
        prefix, dim = dim[0].prefix, dim[0].tail
    axes = [atom.axis for atom in dim]
    if axes == ["h", "w"]:
        return Layout(channel_dim, "tokens", prefix, (dim[0].size, dim[1].size))
    if axes in (["h"], ["w"]):
        grid = (dim[0].size, 1) if axes == ["h"] else (1, dim[0].size)
        return Layout(channel_dim, "tokens", prefix, grid)
    if len(dim) == 1 and isinstance(dim[0].axis, int):
        found = _grid_of_map(graph, size)
        if found is not None:
            return Layout(channel_dim, "tokens", found[0], found[1])
    return Layout(channel_dim, "none")


def _grid_of_map(graph: Graph, size: int) -> tuple[int, tuple[int, int]] | None:
    """Find the smallest prefix that leaves as many tokens as a map of the trace has places."""
    maps = {
        (rows[0].size, columns[0].size)
        for value in graph.values
        if value.axes is not None and len(value.axes) == 4
        for rows, columns in [value.axes[2:] if kind_of(value.axes[1]) == "channel" else value.axes[1:3]]
        if _is_axis(rows, "h") and _is_axis(columns, "w")
    }
    fitting = [(size - h * w, (h, w)) for h, w in maps if 0 <= size - h * w < min(size, 16)]
    return min(fitting, default=None)


def _is_axis(dim: Dim, axis: str) -> bool:
    return len(dim) == 1 and _is(dim[0], axis)


def _is(atom: Atom, axis: str) -> bool:
    return atom.kind == "position" and atom.axis == axis
