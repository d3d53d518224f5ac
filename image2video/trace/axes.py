"""What the dimensions of a tensor stand for: batch, channel or position, followed through every operation of a trace.

A dimension is a tuple of atoms, outermost first: the windows of a batch, `(B·8·8, 49, C)`, are
`((B, h/8, w/8), (h%7, w%7), (C,))`. Views split and join atoms exactly. So the order of a leading dimension B·T·k and
the grid of a token sequence are read from the trace and never guessed.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Literal

from image2video.trace.scale import Scale

Kind = Literal["batch", "channel", "position", "unknown"]


@dataclass(frozen=True)
class Atom:
    """One factor of a dimension: every `stride`-th step along `axis`, `size` of them.

    `prefix` and `tail` describe a sequence that was concatenated from `prefix` places and the atoms `tail`. `scale`
    says how many steps of 1 the axis has for an image of another size; None where the trace does not tell.
    """

    kind: Kind
    size: int
    stride: int = 1
    axis: int | str = "?"
    prefix: int = 0
    tail: tuple[Atom, ...] = ()
    scale: Scale | None = None

    @property
    def own_scale(self) -> Scale | None:
        """How many atoms of this kind the axis has: one in every `stride` steps."""
        return None if self.scale is None or not self.stride else self.scale.then(Scale(self.stride))


Dim = tuple[Atom, ...]
Axes = tuple[Dim, ...]

_fresh = itertools.count()


def fresh(kind: Kind, size: int) -> Dim:
    """Make a dimension of an axis of its own; of size 1, it has no atoms."""
    return () if size == 1 else (Atom(kind, size, axis=next(_fresh)),)


def image_axes(shape: tuple[int, ...]) -> Axes:
    """Name the dimensions of the images `(B, C, H, W)`."""
    images, channels, rows, columns = shape
    height = merged((Atom("position", rows, axis="h", scale=Scale(1)),))
    width = merged((Atom("position", columns, axis="w", scale=Scale(1)),))
    batch = merged((Atom("batch", images, axis="b"),))
    return (batch, fresh("channel", channels), height, width)


def offsets(rows: int, columns: int) -> Dim:
    """Name the places inside a patch; stride 0 keeps them apart from the places of the patches."""
    return (Atom("position", rows, 0, "h"), Atom("position", columns, 0, "w"))


def size_of(dim: Dim) -> int:
    """Multiply the atoms' sizes."""
    return math.prod(atom.size for atom in dim)


def kind_of(dim: Dim) -> Kind:
    """Say what a whole dimension stands for; channels win where positions were folded into them."""
    kinds = {atom.kind for atom in dim}
    if "unknown" in kinds or not kinds:
        return "unknown"
    if "batch" in kinds:
        return "batch"
    return "channel" if "channel" in kinds else "position"


def rank(dim: Dim) -> int:
    """Say how much is known of a dimension: where two tensors meet in one operation, the better known names win."""
    if not dim or any(atom.kind == "unknown" for atom in dim):
        return 0
    if all(isinstance(atom.axis, str) for atom in dim) or dim[-1].tail:
        return 3
    return 2 if kind_of(dim) != "position" else 1


def merged(dim: Dim) -> Dim:
    """Join neighbours that are one axis again, and drop atoms of size 1."""
    out: list[Atom] = []
    for atom in dim:
        if atom.size == 1 and not atom.tail:
            continue
        if out and _continues(out[-1], atom):
            out[-1] = replace(atom, size=out[-1].size * atom.size)
        else:
            out.append(atom)
    return tuple(out)


def _continues(outer: Atom, inner: Atom) -> bool:
    """Whether two atoms are one axis again: each step of the outer one spans the whole inner one."""
    return outer.axis == inner.axis and outer.kind == inner.kind and outer.stride == inner.stride * inner.size


def resized(dim: Dim, size: int, by: Scale | None = None) -> Dim:
    """Name a dimension whose size an operation changed (stride, pooling, padding, slicing, interpolation).

    Args:
        dim: before the operation.
        size: after it.
        by: how the size follows from the one before; None where that is unknown.
    """
    if size == size_of(dim):
        return dim
    if size == 1:
        return ()
    if len(dim) == 1 and dim[0].tail:
        # A slice that takes the prefix tokens off leaves the grid.
        return dim[0].tail if size == size_of(dim[0].tail) else fresh("position", size)
    if len(dim) == 1 and dim[0].kind == "position":
        scale = dim[0].own_scale
        scale = None if scale is None or by is None else scale.then(by)
        return (replace(dim[0], size=size, stride=1, scale=scale),)
    if not dim:  # A single place that was enlarged.
        return fresh("position", size)
    kind = kind_of(dim)
    return fresh("unknown" if kind == "batch" else kind, size)


def reshaped(axes: Axes, shape: tuple[int, ...]) -> Axes:
    """Follow a row-major reshape: atoms are split and joined; where sizes do not divide, the rest is unknown."""
    queue = [atom for dim in axes for atom in dim]
    out: list[Dim] = []
    for size in shape:
        dim = _taken(queue, size)
        if dim is None:
            return (*out, *(fresh("unknown", rest) for rest in shape[len(out) :]))
        out.append(merged(tuple(dim)))
    return tuple(out)


def _taken(queue: list[Atom], size: int) -> list[Atom] | None:
    """Take atoms of `size` places from the head of a queue, splitting the last; None where sizes do not divide."""
    dim: list[Atom] = []
    need = size
    while need > 1:
        if not queue or not queue[0].size:
            return None
        atom = queue.pop(0)
        if need % atom.size == 0:
            dim.append(atom)
            need //= atom.size
        elif atom.size % need == 0 and not atom.tail:
            inner = atom.size // need
            dim.append(replace(atom, size=need, stride=atom.stride * inner))
            queue.insert(0, replace(atom, size=inner))
            need = 1
        else:
            return None
    return dim


def joined(dims: list[Dim], sizes: list[int]) -> Dim:
    """Name the concatenation of `dims` along themselves; prefix tokens before a grid are remembered."""
    total = sum(sizes)
    # A part of size 1 without atoms (a class token) fits any kind.
    kinds = {kind_of(dim) for dim, size in zip(dims, sizes, strict=True) if size > 1 or dim}
    if "batch" in kinds:
        return fresh("unknown", total)
    if kinds == {"channel"}:
        return fresh("channel", total)
    if not kinds:
        return fresh("position", total)
    if "position" not in kinds:
        return fresh("unknown", total)
    *heads, tail = dims
    if not heads or rank(tail) < 3 or any(rank(head) == 3 for head in heads):
        return fresh("position", total)
    # Only the last part is a grid of the image: the parts before it are prefix tokens.
    prefix = sum(sizes[:-1])
    if len(tail) == 1 and tail[0].tail:
        return (replace(tail[0], size=total, prefix=prefix + tail[0].prefix),)
    return (Atom("position", total, axis="cat", prefix=prefix, tail=tail),)
