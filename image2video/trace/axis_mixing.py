"""How operations that mix channels or positions (convolutions, products, patches) name their dimensions."""

from __future__ import annotations

from collections.abc import Callable

from image2video.trace.axes import Axes, Dim, broadcast, fresh, kind_of, merged, offsets, resized
from image2video.trace.operation import Operation


def _conv(op: Operation) -> Axes | None:
    axes = op.first
    if axes is None or len(axes) != len(op.out):
        return None
    mixes_positions = kind_of(axes[1]) == "position" and any(kind_of(d) == "channel" for d in axes[2:])
    second = fresh("position" if mixes_positions else "channel", op.out[1])
    return (axes[0], second, *(resized(d, n) for d, n in zip(axes[2:], op.out[2:], strict=True)))


def _linear(op: Operation) -> Axes | None:
    axes = op.first
    return None if axes is None else (*axes[:-1], _mixed(axes[-1], op.out[-1]))


def _mixed(dim: Dim, size: int) -> Dim:
    return fresh("position" if kind_of(dim) == "position" else "channel", size)


def _matmul(op: Operation) -> Axes | None:
    offset = 1 if op.name in ("addmm", "baddbmm") else 0
    a, b = op.args[offset], op.args[offset + 1]
    if len(a.shape) < 2 or len(b.shape) < 2:
        return None
    heads = [(t.axes[:-2], t.shape[:-2]) for t in (a, b) if t.axes is not None]
    batch = broadcast([h for h, _ in heads], [s for _, s in heads], op.out[:-2])
    row = a.axes[-2] if a.axes is not None else _mixed(b.axes[-2], op.out[-2])
    column = b.axes[-1] if b.axes is not None else _mixed(a.axes[-1], op.out[-1])
    return (*batch, row, column)


def _attention(op: Operation) -> Axes | None:
    query, value = op.args[0], op.args[2]
    if query.axes is None or value.axes is None:
        return None
    return (*query.axes[:-1], value.axes[-1])


def _im2col(op: Operation) -> Axes | None:
    axes = op.first
    kernel = op.arg(1, "kernel_size")
    if axes is None or len(op.out) != 3 or len(axes) != 4:
        return None
    kernel = (*kernel, *kernel)[:2] if isinstance(kernel, list | tuple) else (kernel, kernel)
    dilation, padding, stride = (op.arg(i, name) for i, name in ((2, "dilation"), (3, "padding"), (4, "stride")))
    places = [
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, d, p, s in zip(op.args[0].shape[2:], kernel, dilation, padding, stride, strict=True)
    ]
    patch = merged((*axes[1], *offsets(*kernel)))
    rows, columns = (resized(dim, n) for dim, n in zip(axes[2:], places, strict=True))
    return (axes[0], patch, merged((*rows, *columns)))


def _pixel_unshuffle(op: Operation) -> Axes | None:
    axes = op.first
    if axes is None or len(axes) != 4:
        return None
    factor = op.arg(1, "downscale_factor")
    patch = merged((*axes[1], *offsets(factor, factor)))
    return (axes[0], patch, resized(axes[2], op.out[2]), resized(axes[3], op.out[3]))


def _col2im(op: Operation) -> Axes | None:
    axes = op.first
    if axes is None or len(op.out) != 4:
        return None
    return (axes[0], fresh("channel", op.out[1]), fresh("position", op.out[2]), fresh("position", op.out[3]))


def _recurrent(op: Operation) -> Axes | None:
    axes = op.first
    return None if axes is None or op.index else (*axes[:-1], fresh("channel", op.out[-1]))


_CONVS = "conv1d conv2d conv3d convolution _convolution conv_transpose1d conv_transpose2d conv_transpose3d"
MIXING_RULES: dict[str, Callable[[Operation], Axes | None]] = {
    **dict.fromkeys(_CONVS.split(" "), _conv),
    **dict.fromkeys(("matmul", "mm", "bmm", "addmm", "baddbmm"), _matmul),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
    "linear": _linear,
    "scaled_dot_product_attention": _attention,
    "im2col": _im2col,
    "pixel_unshuffle": _pixel_unshuffle,
    "col2im": _col2im,
}
