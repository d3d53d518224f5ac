"""How each kind of tensor operation moves the names of the dimensions (see `axes`)."""

from __future__ import annotations

from image2video.trace.axes import Axes, Dim, Kind, fresh, joined, kind_of, reshaped, resized
from image2video.trace.axis_mixing import MIXING_RULES, PRODUCT_RULES
from image2video.trace.axis_scales import scales_of
from image2video.trace.operation import Operation, OperationRule, Shape, TensorRule, broadcast
from image2video.trace.scale import Scale


def output_axes(op: Operation) -> Axes:
    """Name the dimensions of one output; what no rule knows is unknown, never guessed."""
    axes: Axes | None = None
    if op.name in _SEVERAL_TENSORS:
        axes = _SEVERAL_TENSORS[op.name](op)
    elif op.name in _ONE_TENSOR and op.first is not None:
        axes = _ONE_TENSOR[op.name](op, op.first)
    if axes is None or len(axes) != len(op.out):
        return _default(op)
    return axes


def _default(op: Operation) -> Axes:
    """Name an elementwise result by its operands, and one of as many dimensions by the first tensor."""
    tensors = op.tensors()
    operands = [tensor for tensor in tensors if _fits(tensor.shape, op.out)]
    if operands:
        return broadcast(operands, op.out)
    first = tensors[0]
    if len(first.shape) == len(op.out) and first.axes is not None:
        changes = zip(first.axes, op.out, scales_of(op, len(op.out)), strict=True)
        return tuple(resized(dim, size, by) for dim, size, by in changes)
    return tuple(fresh("unknown", size) for size in op.out)


def _fits(shape: Shape, out: Shape) -> bool:
    """Whether a shape broadcasts to another, from the right."""
    if len(shape) > len(out):
        return False
    return all(own in (1, size) for own, size in zip(reversed(shape), reversed(out), strict=False))


def _reshape(op: Operation, axes: Axes) -> Axes:
    """Views split and join dimensions."""
    return reshaped(axes, op.out)


def _permute(op: Operation, axes: Axes) -> Axes:
    """Dimensions in another order."""
    return tuple(axes[dim] for dim in op.arg(1, "dims"))


def _transpose(op: Operation, axes: Axes) -> Axes:
    """Two dimensions change places; the last two where none are named."""
    out = list(axes)
    a, b = (op.arg(1, "dim0"), op.arg(2, "dim1")) if op.name == "transpose" else (-2, -1)
    if len(out) > 1:
        out[a], out[b] = out[b], out[a]
    return tuple(out)


def _movedim(op: Operation, axes: Axes) -> Axes | None:
    """One dimension goes to another place."""
    source, target = op.arg(1, "source"), op.arg(2, "destination")
    if not isinstance(source, int) or not isinstance(target, int):
        return None
    out = list(axes)
    moved = out.pop(source)
    out.insert(target % len(axes), moved)
    return tuple(out)


def _without(op: Operation, axes: Axes) -> Axes:
    """One dimension is gone."""
    dim = op.arg(1, "dim", 0) % len(axes)
    return axes[:dim] + axes[dim + 1 :]


def _unsqueeze(op: Operation, axes: Axes) -> Axes:
    """A new dimension of size 1, which has no atoms."""
    dim = op.arg(1, "dim") % (len(axes) + 1)
    return (*axes[:dim], (), *axes[dim:])


def _expand(op: Operation, axes: Axes) -> Axes:
    """Dimensions that grow, and new ones in front, are copies: nothing is known of their places."""
    new = len(op.out) - len(axes)
    front = [fresh("unknown", size) for size in op.out[:new]]
    kept = [
        dim if size == old else fresh("unknown", size)
        for dim, old, size in zip(axes, op.args[0].shape, op.out[new:], strict=True)
    ]
    return (*front, *kept)


def _repeat(op: Operation, axes: Axes) -> Axes:
    """The copies are the outer atom of a dimension."""
    new = len(op.out) - len(axes)
    padded: list[Dim] = [()] * new + list(axes)
    old = (1,) * new + tuple(op.args[0].shape)
    return tuple((*fresh("unknown", size // was), *dim) for dim, was, size in zip(padded, old, op.out, strict=True))


def _reduce(op: Operation, axes: Axes) -> Axes | None:
    """The dimensions that are reduced are gone; kept ones of size 1 need no rule."""
    if len(op.out) == len(axes):
        return None
    given = [*op.args[1:], op.kwargs.get("dim")]
    dims = next((value for value in given if isinstance(value, list | tuple)), [op.arg(1, "dim")])
    if any(not isinstance(dim, int) for dim in dims):
        return None
    gone = {dim % len(axes) for dim in dims}
    return tuple(dim for place, dim in enumerate(axes) if place not in gone)


def _cat(op: Operation) -> Axes:
    """Parts joined along one dimension; elsewhere the best known part names the result."""
    parts = [part for part in op.arg(0, "tensors") if len(part.shape) == len(op.out)]
    dim = op.arg(1, "dim", 0) % len(op.out)
    dims: list[Dim] = [() if part.axes is None else part.axes[dim] for part in parts]
    along = joined(dims, [part.shape[dim] for part in parts])
    axes = broadcast(parts, op.out)
    return (*axes[:dim], along, *axes[dim + 1 :])


def _stack(op: Operation) -> Axes:
    """Parts of one shape along a new dimension, of which nothing is known."""
    dim = op.arg(1, "dim", 0) % len(op.out)
    axes = broadcast(op.arg(0, "tensors"), op.out[:dim] + op.out[dim + 1 :])
    return (*axes[:dim], fresh("unknown", op.out[dim]), *axes[dim:])


def _index(op: Operation, axes: Axes) -> Axes | None:
    """Neighbouring dimensions that are indexed keep their common kind, but not their places."""
    used = [place for place, index in enumerate(op.arg(1, "indices")) if index is not None]
    if not used:
        return None
    first, last = used[0], used[-1]
    if last - first + 1 != len(used):
        return None  # With a gap between them, the result's dimension moves to the front.
    kinds = {kind_of(axes[place]) for place in used}
    kind: Kind = "unknown"
    if len(kinds) == 1 and kinds != {"batch"}:  # Chosen frames are no whole batch.
        kind = kinds.pop()
    new = len(op.out) - (len(axes) - len(used))
    middle = [fresh(kind, size) for size in op.out[first : first + new]]
    return (*axes[:first], *middle, *axes[last + 1 :])


def _gather(op: Operation, axes: Axes) -> Axes | None:
    """The dimension that is gathered along keeps its kind, but not its places."""
    if len(axes) != len(op.out):
        return None
    dim = op.arg(1, "dim") % len(axes)
    kind = kind_of(axes[dim])
    gathered = fresh("unknown" if kind == "batch" else kind, op.out[dim])
    return (*axes[:dim], gathered, *axes[dim + 1 :])


def _unfold(op: Operation, axes: Axes) -> Axes:
    """Windows along one dimension; the places inside of them come last."""
    dim = op.arg(1, "dimension") % len(axes)
    size, step = op.arg(2, "size"), op.arg(3, "step")
    windows = resized(axes[dim], op.out[dim], Scale(step, step - size))
    return (*axes[:dim], windows, *axes[dim + 1 :], fresh("position", op.out[-1]))


_RESHAPES = "view reshape _unsafe_view flatten unflatten squeeze view_as reshape_as _reshape_alias ravel"
_REDUCTIONS = "mean sum amax amin max min var std prod norm linalg_vector_norm logsumexp argmax argmin any all median"
# Rules for operations on one tensor, the first argument; they run where its axes are known.
_ONE_TENSOR: dict[str, TensorRule] = {
    **MIXING_RULES,
    **dict.fromkeys(_RESHAPES.split(" "), _reshape),
    **dict.fromkeys(_REDUCTIONS.split(" "), _reduce),
    **dict.fromkeys(("transpose", "t", "adjoint", "mT", "numpy_T"), _transpose),
    **dict.fromkeys(("select", "unbind"), _without),
    **dict.fromkeys(("gather", "index_select", "take_along_dim", "sort", "topk"), _gather),
    "permute": _permute,
    "movedim": _movedim,
    "unsqueeze": _unsqueeze,
    "expand": _expand,
    "expand_as": _expand,
    "repeat": _repeat,
    "index": _index,
    "unfold": _unfold,
}
_SEVERAL_TENSORS: dict[str, OperationRule] = {
    **PRODUCT_RULES,
    **dict.fromkeys(("concat", "concatenate", "cat"), _cat),
    "stack": _stack,
}
