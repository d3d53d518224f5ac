"""Whether a network takes the number of rows behind a clip site from what comes in there, as it must.

A model may read the number of images early (`B = x.shape[0]`) and use it late (`x.view(B, -1)`): with T times the rows
that fails, or computes something else. So a copy runs with another number of rows from each site on. Every operation
behind must be the one, with the shapes and the arguments, that the network has for as many images from the start.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from image2video.errors import InputError
from image2video.trace.graph import Graph, has
from image2video.trace.operation import Named
from image2video.trace.recorder import Trace, Value
from image2video.trace.trace import IMAGES, trace_forward


@dataclass(frozen=True)
class Begin:
    """The positional input of a call at which the rows change, and the value that comes in there."""

    call: int
    index: int
    value: int


@dataclass(frozen=True)
class Foreign:
    """Where a network uses a number of rows that it read before one of some places.

    Args:
        place: the last of the places before it, which the number was read before; None where that is not known.
        where: what it does there.
    """

    place: int | None
    where: str


def own_rows(backbone: nn.Module, graph: Graph, example: Tensor, begins: Sequence[Begin]) -> list[Begin]:
    """Keep the places behind which a network uses the rows that come in there, and no number that it read before.

    Args:
        backbone: the network; it stays as it is.
        graph: of its traced forward.
        example: an image like the traced ones.
        begins: places in the order of execution, each on every path to the later outputs.
    """
    rows = Rows(backbone, graph, example)
    left = list(begins)
    dropped = len(left)
    # One forward for all; with real tensors it would compute as many rows as there are places.
    while left and graph.trace.fake:
        foreign = rows.foreign(left)
        if foreign is None:
            return left
        if foreign.place is None:
            break
        first = foreign.place
        if first + 1 == dropped:
            # The number was read far ahead, and every place behind its reading fails like this one.
            first = bisect_left(range(first), True, key=lambda place: rows.foreign([left[place]]) is not None)
        del left[first : foreign.place + 1]
        dropped = first
    return [begin for begin in left if rows.foreign([begin]) is None]


class Rows:
    """The rows of a network, which it may have for several numbers of them.

    Args:
        backbone: the network; it stays as it is.
        graph: of its traced forward.
        example: an image like the traced ones.
    """

    def __init__(self, backbone: nn.Module, graph: Graph, example: Tensor) -> None:
        self.backbone = backbone
        self.graph = graph
        self.example = example
        self.more = trace_forward(backbone, example, images=IMAGES + 1)

    def foreign(self, begins: Sequence[Begin]) -> Foreign | None:
        """Return the first place where the network uses a number of rows that it read before one of some places.

        Args:
            begins: places in the order of execution, each on every path to the later outputs.
        """
        # All different: rows that were read at one place and are used behind another are seen.
        rows = [IMAGES + 2 + place for place in range(len(begins))]
        passed: list[int] = []

        def prepare(model: nn.Module) -> None:
            for begin, count in zip(begins, rows, strict=True):
                module = model.get_submodule(self.graph.calls[begin.call].name)
                module.register_forward_pre_hook(_with_rows(begin.index, count, passed))

        try:
            changed = trace_forward(self.backbone, self.example, prepare=prepare, real=not self.graph.trace.fake)
        except InputError as error:
            place = len(passed) - 1 if self.graph.trace.fake else None
            return Foreign(place, f"its forward fails: {error.__cause__ or error}")
        return _Comparison(self.graph, self.more, changed, begins, rows).difference()


def _with_rows(index: int, rows: int, passed: list[int]) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    """Make a hook that repeats the first row of a positional input, and notes that it ran."""

    def replace(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        passed.append(rows)
        return (*args[:index], _repeated(args[index], rows), *args[index + 1 :])

    return replace


def _repeated(tensor: Tensor, rows: int) -> Tensor:
    """Repeat the first row; the memory keeps its order, on which a model's `view` may rely."""
    order = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
    back = [order.index(dim) for dim in range(tensor.ndim)]
    copies = [rows if dim == 0 else 1 for dim in order]
    return tensor[:1].permute(order).repeat(copies).permute(back)


_REPETITION = ("slice", "permute", "repeat", "permute")
"""The operations of `_repeated` as a trace names them."""


class _Comparison:
    """Three forwards of one network: on `IMAGES` images, on one more, and with other rows from some places on.

    From the first two follows what the network does for any number of images: all sizes grow evenly with it.
    """

    def __init__(self, graph: Graph, more: Trace, changed: Trace, begins: Sequence[Begin], rows: Sequence[int]) -> None:
        self.graph = graph
        self.traces = (graph.trace, more, changed)
        self.begins = begins
        self.steps = [
            (graph.calls[begin.call].start, begin.value, count) for begin, count in zip(begins, rows, strict=True)
        ]

    def difference(self) -> Foreign | None:
        """Return the first place where the third forward is not the one that the first two foretell."""
        few, more, changed = ([value for value in trace.values if _counts(value)] for trace in self.traces)
        if [value.op for value in few] != [value.op for value in more]:
            return Foreign(None, "other operations run for another number of images")
        for place, value in enumerate(few):
            passed = sum(start <= value.index for start, _, _ in self.steps)
            shifted = place + passed * len(_REPETITION)
            if shifted >= len(changed) or not self._fits(value, more[place], changed[shifted]):
                name = self.graph.calls[value.call].name if value.call >= 0 else ""
                return Foreign(passed - 1 if passed else None, f"in module {name or '(root)'!r}, {value.op}")
        if len(changed) != len(few) + len(self.steps) * len(_REPETITION):
            return Foreign(None, "other operations run for another number of rows")
        wrong = self._wrong_input()
        if wrong is not None:
            name = self.graph.calls[self.begins[wrong].call].name
            return Foreign(wrong - 1, f"module {name!r} takes rows that are not those of the frames")
        return None if self._outputs_fit() else Foreign(None, "an output has rows of neither the images nor the frames")

    def _wrong_input(self) -> int | None:
        """Return the first place where not the rows from the place before come in: its hook replaces them unseen."""
        for place, begin in enumerate(self.begins):
            inputs = [trace.calls[begin.call].inputs[begin.index] for trace in self.traces]
            shapes = [trace.values[value].shape for trace, value in zip(self.traces, inputs, strict=True)]
            if not _grows(shapes, self._rows(self.graph.values[begin.value])):
                return place
        return None

    def _fits(self, few: Value, more: Value, changed: Value) -> bool:
        """Whether a value of the third forward is the one that is foretold."""
        values = (few, more, changed)
        rows = self._rows(few)
        same = few.op == changed.op and _grows([value.shape for value in values], rows)
        return same and _grows([_arguments(value) for value in values], rows)

    def _outputs_fit(self) -> bool:
        """Whether the outputs are those that are foretold."""
        few, more, changed = (trace.outputs for trace in self.traces)
        if not [path for path, _ in few] == [path for path, _ in more] == [path for path, _ in changed]:
            return False
        for outputs in zip(few, more, changed, strict=True):
            shapes = [trace.values[value].shape for trace, (_, value) in zip(self.traces, outputs, strict=True)]
            if not _grows(shapes, self._rows(self.graph.values[outputs[0][1]])):
                return False
        return True

    def _rows(self, value: Value) -> int:
        """Return how many rows a value has in the third forward; a constant has those of the moment."""
        rows = IMAGES
        for start, root, count in self.steps:
            if value.index >= start and (not value.depends or has(self.graph.ancestors[value.index], root)):
                rows = count
        return rows


def _counts(value: Value) -> bool:
    """Whether a value was computed: what is noted for further views of a memory that was written differs with them."""
    return value.op != "written"


def _arguments(value: Value) -> list[Any]:
    """List the arguments of the operation that made a value; none where they are not written down."""
    if value.operation is None:
        return []
    return [*value.operation.args, *value.operation.kwargs.values()]


def _grows(given: Sequence[Any], rows: int) -> bool:
    """Whether numbers grow evenly with the rows: given those for `IMAGES`, for one more, and for `rows`."""
    few, more, changed = (item.shape if isinstance(item, Named) else item for item in given)
    if isinstance(few, list | tuple):
        same = all(isinstance(items, list | tuple) and len(items) == len(few) for items in (more, changed))
        return same and all(_grows(items, rows) for items in zip(few, more, changed, strict=True))
    if isinstance(few, int) and isinstance(more, int):
        return bool(changed == few + (rows - IMAGES) * (more - few))
    # Other arguments (types, devices, packed weights) say nothing of rows.
    return not isinstance(few, float) or few == more == changed
