"""How operations that mix channels or positions (convolutions, products, patches) name their dimensions."""

from __future__ import annotations

from typing import Any

from image2video.trace.axes import Axes, Dim, Kind, fresh, kind_of, merged, offsets, resized
from image2video.trace.axis_scales import scales_of
from image2video.trace.operation import Named, Operation, OperationRule, TensorRule, broadcast
from image2video.trace.scale import Scale, window


def _conv(op: Operation, axes: Axes) -> Axes | None:
    """A convolution makes channels of its second dimension, or mixes the positions that stand there."""
    if len(axes) != len(op.out):
        return None
    mixes_positions = kind_of(axes[1]) == "position" and any(kind_of(dim) == "channel" for dim in axes[2:])
    second = fresh("position" if mixes_positions else "channel", op.out[1])
    others = [
        resized(dim, size, by) for dim, size, by in zip(axes[2:], op.out[2:], scales_of(op, len(axes))[2:], strict=True)
    ]
    return (axes[0], second, *others)


def _linear(op: Operation, axes: Axes) -> Axes:
    """A linear layer mixes its last dimension."""
    return (*axes[:-1], _mixed(axes[-1], op.out[-1]))


def _mixed(dim: Dim, size: int) -> Dim:
    """Name what a product makes of a dimension: mixed positions stay positions, all else becomes channels."""
    kind: Kind = "position" if kind_of(dim) == "position" else "channel"
    return fresh(kind, size)


def _matmul(op: Operation) -> Axes | None:
    """A product takes its rows from the left factor and its columns from the right one, or mixes the other's."""
    offset = 1 if op.name in ("addmm", "baddbmm") else 0  # These add their first argument.
    left, right = op.args[offset], op.args[offset + 1]
    if len(left.shape) < 2 or len(right.shape) < 2:
        return None
    heads = [Named(factor.shape[:-2], factor.axes[:-2]) for factor in (left, right) if factor.axes is not None]
    batch = broadcast(heads, op.out[:-2])
    if left.axes is None:
        return (*batch, _mixed(right.axes[-2], op.out[-2]), right.axes[-1])
    if right.axes is None:
        return (*batch, left.axes[-2], _mixed(left.axes[-1], op.out[-1]))
    return (*batch, left.axes[-2], right.axes[-1])


def _attention(op: Operation) -> Axes | None:
    """An attention has the queries' places and the values' channels."""
    query, value = op.args[0], op.args[2]
    if query.axes is None or value.axes is None:
        return None
    return (*query.axes[:-1], value.axes[-1])


def _im2col(op: Operation, axes: Axes) -> Axes | None:
    """Patches `(N, C·kh·kw, L)`: the places inside of a patch join the channels, the patches are a sequence."""
    if len(op.out) != 3 or len(axes) != 4:
        return None
    kernel = _pair(op.arg(1, "kernel_size"))
    dilation, padding, stride = op.arg(2, "dilation"), op.arg(3, "padding"), op.arg(4, "stride")
    places = [
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, d, p, s in zip(op.args[0].shape[2:], kernel, dilation, padding, stride, strict=True)
    ]
    patch = merged((*axes[1], *offsets(*kernel)))
    steps = [window(k, s, p, d) for k, s, p, d in zip(kernel, stride, padding, dilation, strict=True)]
    rows, columns = (resized(dim, size, by) for dim, size, by in zip(axes[2:], places, steps, strict=True))
    return (axes[0], patch, merged((*rows, *columns)))


def _pair(size: Any) -> tuple[int, int]:
    """Give a size for rows and columns."""
    if not isinstance(size, list | tuple):
        return (size, size)
    return (size[0], size[-1])


def _pixel_unshuffle(op: Operation, axes: Axes) -> Axes | None:
    """The places inside of a patch join the channels."""
    if len(axes) != 4:
        return None
    factor = op.arg(1, "downscale_factor")
    patch = merged((*axes[1], *offsets(factor, factor)))
    step = Scale(factor)
    return (axes[0], patch, resized(axes[2], op.out[2], step), resized(axes[3], op.out[3], step))


def _col2im(op: Operation, axes: Axes) -> Axes | None:
    """A map made of patches: channels, rows, columns."""
    if len(op.out) != 4:
        return None
    return (axes[0], fresh("channel", op.out[1]), fresh("position", op.out[2]), fresh("position", op.out[3]))


def _recurrent(op: Operation, axes: Axes) -> Axes | None:
    """The outputs of a recurrent layer have the places of its inputs; its states (index 1 and 2) have none."""
    return None if op.index else (*axes[:-1], fresh("channel", op.out[-1]))


# Dynamically quantised layers, whose weight is in an object that is no tensor.
PACKED_LINEARS = frozenset(
    f"linear_{relu}dynamic{kind}" for relu in ("", "relu_") for kind in ("", "_fp16", "_fp16_unpacked_weight")
)
_CONVS = "conv1d conv2d conv3d convolution _convolution conv_transpose1d conv_transpose2d conv_transpose3d"
MIXING_RULES: dict[str, TensorRule] = {
    **dict.fromkeys(_CONVS.split(" "), _conv),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
    **dict.fromkeys(("linear", *PACKED_LINEARS), _linear),
    "im2col": _im2col,
    "pixel_unshuffle": _pixel_unshuffle,
    "col2im": _col2im,
}
PRODUCT_RULES: dict[str, OperationRule] = {
    **dict.fromkeys(("matmul", "mm", "_int_mm", "bmm", "addmm", "baddbmm"), _matmul),
    "scaled_dot_product_attention": _attention,
}
