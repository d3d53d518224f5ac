"""An operation as the axis rules see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from image2video.trace.axes import Axes, Dim, fresh, rank

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Named:
    """A tensor that went into an operation: its shape, and its axes where it depends on the images."""

    shape: Shape
    axes: Axes | None


@dataclass(frozen=True)
class Operation:
    """One operation: tensors in `args` and `kwargs` are `Named`; `out` is the shape of output number `index`."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Shape
    index: int

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        """Return an argument that came by position or by name."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    def tensors(self) -> list[Named]:
        """All tensors that depend on the images, lists opened."""
        flat: list[Any] = []
        for arg in (*self.args, *self.kwargs.values()):
            if isinstance(arg, list | tuple):
                flat += arg
            else:
                flat.append(arg)
        return [item for item in flat if isinstance(item, Named) and item.axes is not None]

    @property
    def first(self) -> Axes | None:
        """The axes of the first argument."""
        first = self.args[0] if self.args else None
        return first.axes if isinstance(first, Named) else None


def broadcast(operands: Sequence[Named], shape: Shape) -> Axes:
    """Name the dimensions of an elementwise result: from the right, the best known operand of the full size."""
    out: list[Dim] = []
    for back in range(len(shape), 0, -1):  # Shapes meet at their ends, so dimensions are counted from there.
        size = shape[-back]
        known: list[Dim] = []
        for operand in operands:
            if operand.axes is not None and len(operand.shape) >= back and operand.shape[-back] == size:
                known.append(operand.axes[-back])
        out.append(max(known, key=rank, default=fresh("unknown", size)))
    return tuple(out)


OperationRule = Callable[[Operation], Axes | None]
"""Names the dimensions of an operation's output; None where it cannot."""
TensorRule = Callable[[Operation, Axes], Axes | None]
"""The same for an operation on one tensor, whose axes it gets."""
