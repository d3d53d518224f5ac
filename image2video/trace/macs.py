"""Multiply-accumulates of the operations of a trace."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from image2video.trace.axis_mixing import PACKED_LINEARS
from image2video.trace.operation import Named, Operation
from image2video.trace.recorder import Value


def macs_of(value: Value) -> int:
    """Count the multiply-accumulates of the operation that made a value, for all images of the trace.

    Convolutions, linear layers, products of matrices, attentions and recurrent layers count; elementwise operations,
    norms and poolings do not. What does not depend on the images has none here: it is computed once for all of them.

    Args:
        value: of a trace.

    Returns:
        The count; 0 for every other operation.
    """
    operation = value.operation
    # An operation with several outputs counts once.
    if operation is None or operation.index or operation.name not in _RULES:
        return 0
    return _RULES[operation.name](operation)


def _conv(op: Operation) -> int:
    """Every place of the output is a sum over one kernel; transposed, every place of the input goes into one."""
    weight = op.arg(1, "weight").shape
    transposed = "transpose" in op.name or (op.name in ("convolution", "_convolution") and op.arg(6, "transposed"))
    places = op.args[0].shape if transposed else op.out
    return prod(places) * prod(weight[1:])


def _linear(op: Operation) -> int:
    """Every place of the output is a sum over the input's features."""
    return prod(op.out) * int(op.args[0].shape[-1])


def _matmul(op: Operation) -> int:
    """Every place of the output is a sum over the columns of the left factor."""
    offset = 1 if op.name.startswith(("addm", "baddbmm")) else 0  # These add their first argument.
    return prod(op.out) * int(op.args[offset].shape[-1])


def _attention(op: Operation) -> int:
    """Every query meets every key, and their weights every value."""
    query, key, value = (argument.shape for argument in op.args[:3])
    return prod(query[:-1]) * int(key[-2]) * int(query[-1] + value[-1])


def _bilinear(op: Operation) -> int:
    """Every place of the output is a sum over the pairs of features of both inputs."""
    return prod(op.out) * prod(op.arg(2, "weight").shape[1:])


def _recurrent(op: Operation) -> int:
    """Every step of the sequence goes through each matrix once."""
    sequence = op.args[0].shape
    lists = [argument for argument in op.args if isinstance(argument, list | tuple)]
    weights = [item.shape for items in lists for item in items if isinstance(item, Named) and len(item.shape) == 2]
    return prod(sequence[:-1]) * sum(prod(weight) for weight in weights)


_CONVS = "conv1d conv2d conv3d convolution _convolution conv_transpose1d conv_transpose2d conv_transpose3d"
_RULES: dict[str, Callable[[Operation], int]] = {
    **dict.fromkeys((*_CONVS.split(" "), "deform_conv2d"), _conv),
    **dict.fromkeys(("linear", *PACKED_LINEARS), _linear),
    **dict.fromkeys(("matmul", "mm", "_int_mm", "bmm", "mv", "dot", "addmm", "addmv", "baddbmm"), _matmul),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
    "scaled_dot_product_attention": _attention,
    "bilinear": _bilinear,
}
