"""How an operation changes the number of places along each dimension of its first tensor."""

from __future__ import annotations

from typing import Any

from image2video.trace.operation import Operation
from image2video.trace.scale import CROP, Scale, window

_POOLS = frozenset({"max_pool1d", "max_pool2d", "max_pool2d_with_indices", "avg_pool1d", "avg_pool2d"})
_CONVS = frozenset({"conv1d", "conv2d", "convolution", "_convolution"})
_PADS = frozenset({"pad", "constant_pad_nd", "reflection_pad2d", "replication_pad2d", "_pad_circular", "narrow"})


def scales_of(op: Operation, count: int) -> list[Scale | None]:
    """Return how the size of each of `count` dimensions follows from the one before; None for unknown."""
    if op.name in _CONVS:
        return _windows(op, count)
    if op.name in _POOLS:
        return _pools(op, count)
    if op.name == "slice":
        return _slices(op, count)
    return [CROP if op.name in _PADS else None] * count


def _windows(op: Operation, count: int) -> list[Scale | None]:
    """Read the windows of a convolution."""
    kernel = op.arg(1, "weight").shape[2:]
    places = len(kernel)
    unknown: list[Scale | None] = [None]
    if op.name in ("convolution", "_convolution") and op.arg(6, "transposed"):
        return unknown * count
    padding = op.arg(4, "padding", 0)
    if padding == "same":  # Only stride 1 is allowed with it.
        return unknown * (count - places) + [Scale(1)] * places
    stride = _each(op.arg(3, "stride", 1), places)
    dilation = _each(op.arg(5, "dilation", 1), places)
    margins = _each(0 if padding == "valid" else padding, places)
    spatial = [window(*sizes) for sizes in zip(kernel, stride, margins, dilation, strict=True)]
    return unknown * (count - places) + list(spatial)


def _pools(op: Operation, count: int) -> list[Scale | None]:
    """Read the windows of a pooling."""
    places = 1 if op.name.endswith("1d") else 2
    dilated = op.name.startswith("max")
    kernel = _each(op.arg(1, "kernel_size"), places)
    stride = _each(op.arg(2, "stride") or op.arg(1, "kernel_size"), places)
    padding = _each(op.arg(3, "padding", 0), places)
    dilation = _each(op.arg(4, "dilation", 1) if dilated else 1, places)
    spatial = [window(*sizes) for sizes in zip(kernel, stride, padding, dilation, strict=True)]
    if op.arg(5 if dilated else 4, "ceil_mode", False):
        # Rounded up, but for a last window that would begin in the padding.
        spatial = [Scale(scale.step, None) for scale in spatial]
    return [None] * (count - places) + list(spatial)


def _slices(op: Operation, count: int) -> list[Scale | None]:
    """Read a slice: every step-th place, from the first one to the last one or within a part."""
    dim, step = op.arg(1, "dim", 0) % count, op.arg(4, "step", 1)
    size, start, end = op.args[0].shape[dim], op.arg(2, "start") or 0, op.arg(3, "end")
    whole = start == 0 and (end is None or end >= size)
    scales: list[Scale | None] = [Scale(1)] * count
    scales[dim] = Scale(step, step - 1 if whole else None)
    return scales


def _each(value: Any, places: int) -> list[int]:
    """Give a size for each spatial dimension."""
    sizes = list(value) if isinstance(value, list | tuple) else [value]
    return sizes * places if len(sizes) == 1 else sizes
