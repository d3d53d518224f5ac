"""Operations that read windows of a map (N, C, H, W): convolutions, pooling, resampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from image2video.receptive_field.reach import Reach
from image2video.trace.operation import Named, Operation

WHOLE = "whole"
"""Stands in `Reach.whole` until the module's name is known."""


class NoRule(Exception):  # noqa: N818 (control flow between the rules)
    """The operation is of a form that the rule does not know."""


def spatial_map(op: Operation) -> Named:
    """The first argument, which must be a map (N, C, H, W)."""
    first = op.args[0] if op.args else None
    if not isinstance(first, Named) or first.axes is None or len(first.shape) != 4:
        raise NoRule
    for dim, name in zip(first.axes[2:], ("h", "w"), strict=True):
        if dim and (len(dim) != 1 or dim[0].axis != name or dim[0].stride != 1):
            raise NoRule
    return first


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, list | tuple):
        return (value[0], value[-1])
    return (value, value)


def _window(op: Operation, reach: Reach, windows: Sequence[tuple[float, float, float]]) -> Reach:
    rows, columns = windows
    return reach.spans(reach.rows.window(*rows, op.out[2]), reach.columns.window(*columns, op.out[3]))


def _kernels(kernel: Any, stride: Any, padding: Any, dilation: Any) -> list[tuple[float, float, float]]:
    out: list[tuple[float, float, float]] = []
    values = (_pair(kernel), _pair(stride), _pair(padding), _pair(dilation))
    for k, s, p, d in zip(*values, strict=True):
        out.append((-p, d * (k - 1) - p, s))
    return out


def conv(op: Operation, reaches: list[Reach]) -> Reach:
    """A convolution; "same" pads less ahead than behind where the reach is even."""
    spatial_map(op)
    weight = op.args[1]
    if len(reaches) != 1 or len(weight.shape) != 4:
        raise NoRule
    stride, padding, dilation = op.arg(3, "stride", 1), op.arg(4, "padding", 0), op.arg(5, "dilation", 1)
    kernel = weight.shape[2:]
    if isinstance(padding, str):
        ahead = [d * (k - 1) // 2 if padding == "same" else 0 for k, d in zip(kernel, _pair(dilation), strict=True)]
        padding = ahead
    return _window(op, reaches[0], _kernels(kernel, stride, padding, dilation))


def transposed(op: Operation, reaches: list[Reach]) -> Reach:
    """A transposed convolution: output o reads the inputs (o + p − d·k) / s that are whole numbers."""
    spatial_map(op)
    weight = op.args[1]
    if len(reaches) != 1 or len(weight.shape) != 4:
        raise NoRule
    stride, padding, dilation = op.arg(3, "stride", 1), op.arg(4, "padding", 0), op.arg(7, "dilation", 1)
    values = (weight.shape[2:], _pair(stride), _pair(padding), _pair(dilation))
    windows = [((p - d * (k - 1)) / s, p / s, 1 / s) for k, s, p, d in zip(*values, strict=True)]
    return _window(op, reaches[0], windows)


def pool(op: Operation, reaches: list[Reach]) -> Reach:
    """Average or maximum over windows."""
    spatial_map(op)
    kernel = op.arg(1, "kernel_size")
    dilation = op.arg(4, "dilation", 1) if op.name.startswith("max") else 1
    return _window(op, reaches[0], _kernels(kernel, op.arg(2, "stride") or kernel, op.arg(3, "padding", 0), dilation))


def adaptive(op: Operation, reaches: list[Reach]) -> Reach:
    """Pooling to a given size; to one unit, it sees the whole map."""
    spatial_map(op)
    reach = reaches[0]
    spans = (reach.rows, reach.columns)
    if any(count == 1 < span.count for span, count in zip(spans, op.out[2:], strict=True)):
        return replace(reach, whole=WHOLE)
    windows: list[tuple[float, float, float]] = []
    for span, count in zip(spans, op.out[2:], strict=True):
        ratio = span.count / count
        # Bins that do not divide the map begin and end up to a unit earlier or later.
        slack = 0 if span.count % count == 0 else 1
        windows.append((-slack, ratio - 1 + slack, ratio))
    return _window(op, reach, windows)


_TAPS = {"nearest": (1.0, 0.0), "bilinear": (1.0, 1.0), "bicubic": (2.0, 2.0)}


def upsample(op: Operation, reaches: list[Reach]) -> Reach:
    """Interpolation: the units around the place that is sampled, whichever phase that has."""
    spatial_map(op)
    reach = reaches[0]
    nearest = "nearest" in op.name
    aligned = not nearest and bool(op.arg(2, "align_corners", False))
    before, after = _TAPS["nearest" if nearest else "bicubic" if "bicubic" in op.name else "bilinear"]
    scales = _scales(op, nearest)
    windows: list[tuple[float, float, float]] = []
    for span, count, scale in zip((reach.rows, reach.columns), op.out[2:], scales, strict=True):
        ratio = span.count / count if scale is None else 1 / scale
        shift = 0.0 if nearest else 0.5 * ratio - 0.5
        if aligned:
            ratio, shift = ((span.count - 1) / (count - 1) if count > 1 else 0.0), 0.0
        elif nearest and "exact" in op.name:
            shift = 0.5 * ratio
        windows.append((shift - before, shift + after, ratio))
    if "_aa" in op.name and any(window[2] > 1 for window in windows):
        raise NoRule
    return _window(op, reach, windows)


def _scales(op: Operation, nearest: bool) -> Sequence[float | None]:
    """The scale factors that the sampler was given, which decide its coordinates; None for the ratio of the sizes."""
    rest = op.args[2 if nearest else 3 :]
    given = rest[0] if rest else op.kwargs.get("scale_factors")
    if isinstance(given, list | tuple):
        return _pair(given)
    return (given, rest[1] if len(rest) > 1 else None)
