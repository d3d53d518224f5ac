"""What each kind of operation does to the reach of the units; what no rule knows is unknown, never guessed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from image2video.receptive_field.reach import Reach, join
from image2video.receptive_field.reach_windows import (
    WHOLE,
    NoRule,
    adaptive,
    conv,
    pool,
    spatial_map,
    transposed,
    upsample,
)
from image2video.trace.axes import Dim
from image2video.trace.operation import Operation

Rule = Callable[[Operation, list[Reach]], Reach]
"""From an operation and the reach of each tensor that depends on the images, in order, to the reach of its output."""


def reach_after(op: Operation, reaches: list[Reach], where: str) -> Reach:
    """The reach of the output of an operation; `where` names the module that runs it."""
    for reach in reaches:
        if reach.whole:  # nothing that comes later can take that back
            return reach
    here = f"{op.name} in {where}"
    if op.name in GLOBAL:
        return replace(reaches[0], whole=here)
    for reach in reaches:
        if reach.unknown:
            return reach
    unknown = replace(reaches[0], unknown=here)
    if op.name not in _RULES:
        return unknown
    try:
        after = _RULES[op.name](op, reaches)
    except NoRule:
        return unknown
    return replace(after, whole=here) if after.whole else after


def _has_position(dim: Dim) -> bool:
    """Whether places of the image lie along a dimension, or may do."""
    return any(atom.kind not in ("channel", "batch") and (atom.size > 1 or bool(atom.tail)) for atom in dim)


def _mixes(reach: Reach, dims: Sequence[Dim]) -> Reach:
    """The reach after an operation that mixes along dimensions."""
    return replace(reach, whole=WHOLE) if any(_has_position(dim) for dim in dims) else reach


def _pad(op: Operation, reaches: list[Reach]) -> Reach:
    """Padding by constants, which moves a map; channels may be padded too."""
    if op.name == "pad" and op.arg(2, "mode", "constant") not in ("constant", 0, 0.0):
        raise NoRule
    first, sides = op.args[0], list(op.arg(1, "pad"))
    # PyTorch lists the sides from the last dimension on: (left, right, top, bottom, …).
    ends = zip(reversed(first.axes or ()), zip(sides[::2], sides[1::2], strict=True), strict=False)
    if not any(_has_position(dim) for dim, amounts in ends if any(amounts)):
        return reaches[0]
    spatial_map(op)
    left, right, top, bottom = (sides + [0] * 4)[:4]
    rows, columns = reaches[0].axes
    return reaches[0].along(
        rows.window(-top, -top, 1, rows.count + top + bottom),
        columns.window(-left, -left, 1, columns.count + left + right),
    )


def _dims(op: Operation, given: Any) -> list[Dim]:
    """The dimensions that an argument names; all of them for None and an empty list."""
    axes = op.first or ()
    if given is None or given == []:
        return list(axes)
    chosen = given if isinstance(given, list | tuple) else [given]
    return [axes[d] for d in chosen]


def _reduce(op: Operation, reaches: list[Reach]) -> Reach:
    """Sums, means and norms along dimensions; a `bool` in the place of `dim` is another argument."""
    position = 2 if op.name in ("norm", "linalg_vector_norm") else 1
    given = op.arg(position, "dim")
    return _mixes(reaches[0], _dims(op, None if isinstance(given, bool) else given))


def _softmax(op: Operation, reaches: list[Reach]) -> Reach:
    """A softmax mixes along its dimension."""
    return _mixes(reaches[0], _dims(op, op.arg(1, "dim")))


def _layer_norm(op: Operation, reaches: list[Reach]) -> Reach:
    """A layer norm mixes along the last dimensions."""
    axes = op.first or ()
    return _mixes(reaches[0], axes[len(axes) - len(op.arg(1, "normalized_shape")) :])


def _product(op: Operation, reaches: list[Reach]) -> Reach:
    """A product of matrices mixes along the dimension that it sums over."""
    if len(reaches) > 1:
        return replace(join(reaches), whole=WHOLE)
    offset = 1 if op.name in ("addmm", "baddbmm") else 0
    a, b = op.args[offset], op.args[offset + 1]
    if a.axes is not None:
        return _mixes(reaches[0], [a.axes[-1]])
    if b.axes is not None:
        return _mixes(reaches[0], [b.axes[-2 if len(b.axes) > 1 else -1]])
    return reaches[0]


def _cat(op: Operation, reaches: list[Reach]) -> Reach:
    """Maps beside each other in the channels; along places, units of the parts would have other numbers."""
    parts = [part for part in op.arg(0, "tensors") if part.axes is not None]
    dim = op.arg(1, "dim", 0)
    if len(parts) > 1 and any(_has_position(part.axes[dim]) for part in parts if part.axes):
        raise NoRule
    return join(reaches)


def _sliced(op: Operation, reaches: list[Reach]) -> Reach:
    """A part of the channels, or every so many rows or columns from a first one on."""
    axes, dim = op.first or (), op.arg(1, "dim", 0)
    if not isinstance(dim, int) or not axes:
        raise NoRule
    reach = reaches[0]
    if not _has_position(axes[dim]):
        return reach
    shape = spatial_map(op).shape
    dim %= 4
    if op.name not in ("slice", "narrow") or dim < 2:
        raise NoRule
    start = op.arg(2, "start") or 0
    if start < 0:
        start = max(0, start + shape[dim])
    step = op.arg(4, "step", 1) if op.name == "slice" else 1
    spans = list(reach.axes)
    spans[dim - 2] = spans[dim - 2].window(start, start, step, op.out[dim])
    return reach.along(*spans)


def _same(op: Operation, reaches: list[Reach]) -> Reach:
    """What reads its own place only."""
    return join(reaches)


def _expanded(op: Operation, reaches: list[Reach]) -> Reach:
    """A map of one unit that is repeated in place; a larger one keeps its places."""
    spans = [span.spread(2) if span.count == 1 else span for span in reaches[0].axes]
    return reaches[0].along(*spans)


GLOBAL = frozenset(
    {"scaled_dot_product_attention", "_native_multi_head_attention", "group_norm", "native_group_norm", "instance_norm"}
    | {"fft_rfft2", "fft_fft2", "fft_rfftn", "fft_fftn", "lstm", "gru"}
)
"""Operations that let every unit see the whole map, or at least so much of it that the whole is the honest bound."""

_POINTWISE = (
    "add sub mul div neg abs exp log pow sqrt rsqrt square reciprocal sign clamp clamp_min clamp_max maximum minimum "
    "where lerp addcmul addcdiv rsub true_divide masked_fill erf sin cos "
    "relu relu6 leaky_relu elu celu selu gelu silu mish sigmoid tanh hardtanh hardswish hardsigmoid softplus softsign "
    "prelu threshold log_sigmoid rrelu "
    "batch_norm native_batch_norm cudnn_batch_norm _batch_norm_impl_index dropout feature_dropout alpha_dropout "
    "feature_alpha_dropout clone contiguous to _to_copy type_as float double half alias detach zeros_like written copy"
)
_VIEWS = (
    "view reshape _unsafe_view flatten unflatten squeeze unsqueeze view_as reshape_as _reshape_alias ravel permute "
    "transpose t adjoint mT numpy_T movedim swapaxes"
)
_REDUCTIONS = "mean sum amax amin var std var_mean std_mean prod norm linalg_vector_norm logsumexp"
_RULES: dict[str, Rule] = {
    **dict.fromkeys(_POINTWISE.split(), _same),
    **dict.fromkeys(_VIEWS.split(), _same),
    **dict.fromkeys(_REDUCTIONS.split(), _reduce),
    **dict.fromkeys(("conv2d", "convolution", "_convolution"), conv),
    **dict.fromkeys(("max_pool2d", "max_pool2d_with_indices", "avg_pool2d"), pool),
    **dict.fromkeys(("adaptive_avg_pool2d", "adaptive_max_pool2d", "_adaptive_avg_pool2d"), adaptive),
    **dict.fromkeys(("upsample_nearest2d", "_upsample_nearest_exact2d"), upsample),
    **dict.fromkeys(("upsample_bilinear2d", "upsample_bicubic2d", "_upsample_bilinear2d_aa"), upsample),
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    **dict.fromkeys(("softmax", "_softmax", "log_softmax", "_log_softmax"), _softmax),
    **dict.fromkeys(("layer_norm", "native_layer_norm", "rms_norm"), _layer_norm),
    **dict.fromkeys(("linear", "matmul", "mm", "bmm", "addmm", "baddbmm"), _product),
    **dict.fromkeys(("cat", "concat", "concatenate", "stack"), _cat),
    **dict.fromkeys(("slice", "narrow", "select", "split", "split_with_sizes", "chunk", "unbind"), _sliced),
    **dict.fromkeys(("expand", "expand_as"), _expanded),
    "conv_transpose2d": transposed,
}
