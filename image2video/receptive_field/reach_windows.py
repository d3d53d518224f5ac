"""Operations that read windows of a map (N, C, H, W): convolutions, pooling, resampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from image2video.receptive_field.reach import Reach
from image2video.trace.operation import Named, Operation

WHOLE = "whole"
"""Stands in `Reach.whole` until the module's name is known."""

Window = tuple[float, float, float]
"""(first, last, stride) along an axis, as `Span.window` takes them."""


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
    """An argument of a layer as (rows, columns)."""
    if isinstance(value, list | tuple):
        return (value[0], value[-1])
    return (value, value)


def _windows(op: Operation, reach: Reach, windows: Sequence[Window]) -> Reach:
    """The reach after an operation that reads these windows along rows and columns."""
    rows, columns = (
        span.window(*window, count) for span, window, count in zip(reach.axes, windows, op.out[2:], strict=True)
    )
    return reach.along(rows, columns)


def _layer(op: Operation, reach: Reach, kernel: Any, stride: Any, dilation: Any, padding: Any) -> Reach:
    """The reach after a convolution or pooling of these sizes."""
    sizes = zip(_pair(kernel), _pair(stride), _pair(dilation), _pair(padding), strict=True)
    rows, columns = (
        span.layer(*size, count=count) for span, size, count in zip(reach.axes, sizes, op.out[2:], strict=True)
    )
    return reach.along(rows, columns)


def _kernel(op: Operation, reaches: list[Reach]) -> tuple[int, int]:
    """The (height, width) of a convolution's kernel, which does not itself depend on the images."""
    spatial_map(op)
    weight = op.args[1]
    if len(reaches) != 1 or len(weight.shape) != 4:
        raise NoRule
    return weight.shape[2], weight.shape[3]


def conv(op: Operation, reaches: list[Reach]) -> Reach:
    """A convolution; "same" pads less ahead than behind where the reach is even."""
    kernel, dilation = _kernel(op, reaches), op.arg(5, "dilation", 1)
    padding = op.arg(4, "padding", 0)
    if padding == "same":
        padding = [d * (k - 1) // 2 for k, d in zip(kernel, _pair(dilation), strict=True)]
    elif isinstance(padding, str):
        padding = 0
    return _layer(op, reaches[0], kernel, op.arg(3, "stride", 1), dilation, padding)


def transposed(op: Operation, reaches: list[Reach]) -> Reach:
    """A transposed convolution: output o reads the inputs (o + p − d·k) / s that are whole numbers."""
    kernel = _kernel(op, reaches)
    stride, padding, dilation = op.arg(3, "stride", 1), op.arg(4, "padding", 0), op.arg(7, "dilation", 1)
    sizes = zip(kernel, _pair(stride), _pair(padding), _pair(dilation), strict=True)
    return _windows(op, reaches[0], [((p - d * (k - 1)) / s, p / s, 1 / s) for k, s, p, d in sizes])


def pool(op: Operation, reaches: list[Reach]) -> Reach:
    """Average or maximum over windows."""
    spatial_map(op)
    kernel = op.arg(1, "kernel_size")
    dilation = op.arg(4, "dilation", 1) if op.name.startswith("max") else 1
    return _layer(op, reaches[0], kernel, op.arg(2, "stride") or kernel, dilation, op.arg(3, "padding", 0))


def adaptive(op: Operation, reaches: list[Reach]) -> Reach:
    """Pooling to a given size; to one unit, it sees the whole map."""
    spatial_map(op)
    reach = reaches[0]
    windows: list[Window] = []
    for span, count in zip(reach.axes, op.out[2:], strict=True):
        if count == 1 < span.count:
            return replace(reach, whole=WHOLE)
        ratio = span.count / count
        # Bins that do not divide the map begin and end up to a unit earlier or later.
        slack = 0 if span.count % count == 0 else 1
        windows.append((-slack, ratio - 1 + slack, ratio))
    return _windows(op, reach, windows)


def upsample(op: Operation, reaches: list[Reach]) -> Reach:
    """Interpolation: the units around the place that is sampled, whichever phase that has."""
    spatial_map(op)
    reach = reaches[0]
    windows = [
        _sampled(op, span.count, count, scale)
        for span, count, scale in zip(reach.axes, op.out[2:], _scales(op), strict=True)
    ]
    # Antialiasing widens the kernel where the map becomes smaller.
    if "_aa" in op.name and any(stride > 1 for _, _, stride in windows):
        raise NoRule
    return _windows(op, reach, windows)


def _sampled(op: Operation, before: int, after: int, scale: float | None) -> Window:
    """The window of an interpolation from `before` units along an axis to `after`."""
    ratio = before / after if scale is None else 1 / scale
    if "nearest" in op.name:
        shift = 0.5 * ratio if "exact" in op.name else 0.0
        return shift - 1, shift, ratio
    taps = 2 if "bicubic" in op.name else 1
    if op.arg(2, "align_corners", False):
        return -taps, taps, (before - 1) / (after - 1) if after > 1 else 0.0
    shift = 0.5 * ratio - 0.5
    return shift - taps, shift + taps, ratio


def _scales(op: Operation) -> Sequence[float | None]:
    """The scale factors that the sampler was given, which decide its coordinates; None for the ratio of the sizes."""
    rest = op.args[2 if "nearest" in op.name else 3 :]
    given = rest[0] if rest else op.kwargs.get("scale_factors")
    if isinstance(given, list | tuple):
        return _pair(given)
    return (given, rest[1] if len(rest) > 1 else None)
