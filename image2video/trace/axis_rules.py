"""How each kind of tensor operation moves the names of the dimensions (see `axes`)."""

from __future__ import annotations

from collections.abc import Callable

from image2video.trace.axes import Axes, Dim, broadcast, fresh, joined, kind_of, reshaped, resized
from image2video.trace.axis_mixing import MIXING_RULES
from image2video.trace.operation import Operation, Shape


def output_axes(op: Operation) -> Axes:
    """Name the dimensions of one output; what no rule knows is unknown, never guessed."""
    rule = _RULES.get(op.name)
    axes = rule(op) if rule is not None else None
    if axes is None or len(axes) != len(op.out):
        axes = _default(op)
    return axes


def _default(op: Operation) -> Axes:
    tensors = op.tensors()
    same = [t for t in tensors if len(t.shape) <= len(op.out) and _fits(t.shape, op.out)]
    if same and any(t.shape == op.out for t in tensors):
        return broadcast([t.axes or () for t in same], [t.shape for t in same], op.out)
    first = tensors[0]
    if len(first.shape) == len(op.out) and first.axes is not None and not same:
        return tuple(resized(dim, n) for dim, n in zip(first.axes, op.out, strict=True))
    if same:
        return broadcast([t.axes or () for t in same], [t.shape for t in same], op.out)
    return tuple(fresh("unknown", n) for n in op.out)


def _fits(shape: Shape, out: Shape) -> bool:
    return all(a in (1, b) for a, b in zip(reversed(shape), reversed(out), strict=False))


def _reshape(op: Operation) -> Axes | None:
    axes = op.first
    return None if axes is None else reshaped(axes, op.out)


def _permute(op: Operation) -> Axes | None:
    axes = op.first
    return None if axes is None else tuple(axes[d] for d in op.arg(1, "dims"))


def _transpose(op: Operation) -> Axes | None:
    axes = op.first
    if axes is None:
        return None
    out = list(axes)
    a, b = (op.arg(1, "dim0"), op.arg(2, "dim1")) if op.name == "transpose" else (-2, -1)
    if len(out) > 1:
        out[a], out[b] = out[b], out[a]
    return tuple(out)


def _movedim(op: Operation) -> Axes | None:
    axes = op.first
    source, target = op.arg(1, "source"), op.arg(2, "destination")
    if axes is None or not isinstance(source, int) or not isinstance(target, int):
        return None
    out = list(axes)
    moved = out.pop(source)
    out.insert(target % len(axes), moved)
    return tuple(out)


def _without(op: Operation) -> Axes | None:
    axes = op.first
    if axes is None:
        return None
    dim = op.arg(1, "dim", 0) % len(axes)
    return axes[:dim] + axes[dim + 1 :]


def _unsqueeze(op: Operation) -> Axes | None:
    axes = op.first
    if axes is None:
        return None
    dim = op.arg(1, "dim") % (len(axes) + 1)
    return (*axes[:dim], (), *axes[dim:])


def _expand(op: Operation) -> Axes | None:
    axes = op.first
    if axes is None:
        return None
    new = len(op.out) - len(axes)
    old = op.args[0].shape
    kept = [d if n == m else fresh("unknown", n) for d, m, n in zip(axes, old, op.out[new:], strict=True)]
    return (*(fresh("unknown", n) for n in op.out[:new]), *kept)


def _repeat(op: Operation) -> Axes | None:
    axes = op.first
    if axes is None:
        return None
    new = len(op.out) - len(axes)
    padded: list[Dim] = [()] * new + list(axes)
    old = (1,) * new + tuple(op.args[0].shape)
    return tuple((*fresh("unknown", n // m), *d) for d, m, n in zip(padded, old, op.out, strict=True))


def _reduce(op: Operation) -> Axes | None:
    axes = op.first
    if axes is None or len(op.out) == len(axes):
        return None
    dims = next((a for a in (*op.args[1:], op.kwargs.get("dim")) if isinstance(a, list | tuple)), None)
    if dims is None:
        dims = [op.arg(1, "dim")]
    if any(not isinstance(d, int) for d in dims):
        return None
    gone = {d % len(axes) for d in dims}
    return tuple(dim for i, dim in enumerate(axes) if i not in gone)


def _cat(op: Operation) -> Axes | None:
    parts = [part for part in op.arg(0, "tensors") if len(part.shape) == len(op.out)]
    dim = op.arg(1, "dim", 0) % len(op.out)
    known = [part for part in parts if part.axes is not None]
    axes = list(broadcast([p.axes for p in known], [p.shape for p in known], op.out))
    dims = [part.axes[dim] if part.axes is not None else () for part in parts]
    axes[dim] = joined(dims, [part.shape[dim] for part in parts])
    return tuple(axes)


def _stack(op: Operation) -> Axes | None:
    parts = [part for part in op.arg(0, "tensors") if part.axes is not None]
    dim = op.arg(1, "dim", 0) % len(op.out)
    inner = op.out[:dim] + op.out[dim + 1 :]
    axes = broadcast([p.axes for p in parts], [p.shape for p in parts], inner)
    return (*axes[:dim], fresh("unknown", op.out[dim]), *axes[dim:])


def _index(op: Operation) -> Axes | None:
    axes = op.first
    if axes is None:
        return None
    indices = op.arg(1, "indices")
    used = [i for i, index in enumerate(indices) if index is not None]
    if not used or used[-1] - used[0] + 1 != len(used):
        return None
    kinds = {kind_of(axes[i]) for i in used}
    new = len(op.out) - (len(axes) - len(used))
    kind = kinds.pop() if len(kinds) == 1 and kinds != {"batch"} else "unknown"
    middle = [fresh(kind, n) for n in op.out[used[0] : used[0] + new]]
    return (*axes[: used[0]], *middle, *axes[used[-1] + 1 :])


def _gather(op: Operation) -> Axes | None:
    axes = op.first
    if axes is None or len(axes) != len(op.out):
        return None
    dim = op.arg(1, "dim") % len(axes)
    kind = kind_of(axes[dim])
    return tuple(
        fresh("unknown" if kind == "batch" else kind, n) if i == dim else d
        for i, (d, n) in enumerate(zip(axes, op.out, strict=True))
    )


def _unfold(op: Operation) -> Axes | None:
    axes = op.first
    if axes is None:
        return None
    dim = op.arg(1, "dimension") % len(axes)
    out = list(axes)
    out[dim] = resized(axes[dim], op.out[dim])
    return (*out, fresh("position", op.out[-1]))


_RESHAPES = "view reshape _unsafe_view flatten unflatten squeeze view_as reshape_as _reshape_alias ravel"
_REDUCTIONS = "mean sum amax amin max min var std prod norm linalg_vector_norm logsumexp argmax argmin any all median"
_RULES: dict[str, Callable[[Operation], Axes | None]] = {
    **MIXING_RULES,
    **dict.fromkeys(_RESHAPES.split(" "), _reshape),
    **dict.fromkeys(_REDUCTIONS.split(" "), _reduce),
    **dict.fromkeys(("transpose", "t", "adjoint", "mT", "numpy_T"), _transpose),
    **dict.fromkeys(("select", "unbind"), _without),
    **dict.fromkeys(("gather", "index_select", "take_along_dim", "sort", "topk"), _gather),
    **dict.fromkeys(("concat", "concatenate", "cat"), _cat),
    "permute": _permute,
    "movedim": _movedim,
    "unsqueeze": _unsqueeze,
    "expand": _expand,
    "expand_as": _expand,
    "repeat": _repeat,
    "stack": _stack,
    "index": _index,
    "unfold": _unfold,
}
