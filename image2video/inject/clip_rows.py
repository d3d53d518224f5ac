"""Whether a network takes the number of rows behind a clip site from what comes in there, as it must.

A model may read the number of images early (`B = x.shape[0]`) and use it late (`x.view(B, -1)`): with T times the rows
that fails, or computes something else. So a copy runs with another number of rows from each site on. Every operation
behind must be the one, with the shapes and the arguments, that the network has for as many images from the start.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from image2video.errors import InputError
from image2video.inject.clip_places import Place
from image2video.trace.graph import Graph, has
from image2video.trace.operation import Named
from image2video.trace.recorder import Trace, Value
from image2video.trace.trace import IMAGES, trace_forward


@dataclass(frozen=True)
class Foreign:
    """Where a network uses a number of rows that it read before one of some places.

    Args:
        place: number of the last of the places before it, which it was read before; None where that is not known.
        where: what it does there.
    """

    place: int | None
    where: str


def own_rows(backbone: nn.Module, graph: Graph, example: Tensor, places: Sequence[Place]) -> list[Place]:
    """Keep the places behind which a network uses the rows that come in there, and no number that it read before.

    Args:
        backbone: the network; it stays as it is.
        graph: of its traced forward.
        example: an image like the traced ones.
        places: of modules, in the order of execution, each on every path to the outputs behind it.
    """
    rows = Rows(backbone, graph, example)
    left = list(places)
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
            first = bisect_left(range(first), True, key=lambda number: rows.foreign([left[number]]) is not None)
        del left[first : foreign.place + 1]
        dropped = first
    return [place for place in left if rows.foreign([place]) is None]


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

    def foreign(self, places: Sequence[Place]) -> Foreign | None:
        """Return the first place where the network uses a number of rows that it read before one of some places.

        Args:
            places: of modules, in the order of execution, each on every path to the outputs behind it.
        """
        # All different: rows that were read at one place and are used behind another are seen.
        rows = [IMAGES + 2 + number for number in range(len(places))]
        passed: list[int] = []

        def prepare(model: nn.Module) -> None:
            for place, count in zip(places, rows, strict=True):
                call = self.graph.calls[place.call]
                hook = _with_rows(call.inputs.index(place.value), count, passed)
                model.get_submodule(call.name).register_forward_pre_hook(hook)

        try:
            changed = trace_forward(self.backbone, self.example, prepare=prepare, real=not self.graph.trace.fake)
        except InputError as error:
            chain = all(has(place.behind, after.value) for place, after in pairwise(places))
            return Foreign(len(passed) - 1 if chain else None, f"its forward fails: {error.__cause__ or error}")
        return _Comparison(self.graph, self.more, changed, places, rows).difference()


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

    def __init__(self, graph: Graph, more: Trace, changed: Trace, places: Sequence[Place], rows: Sequence[int]) -> None:
        self.graph = graph
        self.traces = (graph.trace, more, changed)
        self.places = places
        self.rows = rows

    def difference(self) -> Foreign | None:
        """Return the first place where the third forward is not the one that the first two foretell."""
        few, more, changed = ([value for value in trace.values if _counts(value)] for trace in self.traces)
        if [value.op for value in few] != [value.op for value in more]:
            return Foreign(None, "other operations run for another number of images")
        starts = sorted(self.graph.calls[place.call].start for place in self.places)
        for number, value in enumerate(few):
            shifted = number + bisect_right(starts, value.index) * len(_REPETITION)
            if shifted >= len(changed) or not self._fits(value, more[number], changed[shifted]):
                name = self.graph.calls[value.call].name if value.call >= 0 else ""
                return Foreign(self._place_before(value.index), f"in module {name or '(root)'!r}, {value.op}")
        if len(changed) != len(few) + len(starts) * len(_REPETITION):
            return Foreign(None, "other operations run for another number of rows")
        wrong = self._wrong_input()
        if wrong is not None:
            return wrong
        return None if self._outputs_fit() else Foreign(None, "an output has rows of neither the images nor the frames")

    def _wrong_input(self) -> Foreign | None:
        """Return the first place where other rows come in than those from the place before: its hook hides them."""
        for place in self.places:
            call = self.graph.calls[place.call]
            index = call.inputs.index(place.value)
            inputs = [trace.values[trace.calls[place.call].inputs[index]] for trace in self.traces]
            if not _grows([value.shape for value in inputs], self._rows(place.value)):
                before = self._place_before(place.value)
                return Foreign(before, f"module {call.name!r} takes rows that are not those of the frames")
        return None

    def _fits(self, few: Value, more: Value, changed: Value) -> bool:
        """Whether a value of the third forward is the one that is foretold."""
        if not few.depends:
            return few.op == changed.op  # A constant of a wrong size shows in what is made with it.
        values = (few, more, changed)
        rows = self._rows(few.index)
        same = few.op == changed.op and _grows([value.shape for value in values], rows)
        return same and _grows([_arguments(value) for value in values], rows)

    def _outputs_fit(self) -> bool:
        """Whether the outputs are those that are foretold."""
        few, more, changed = (trace.outputs for trace in self.traces)
        if not [path for path, _ in few] == [path for path, _ in more] == [path for path, _ in changed]:
            return False
        for outputs in zip(few, more, changed, strict=True):
            shapes = [trace.values[value].shape for trace, (_, value) in zip(self.traces, outputs, strict=True)]
            if not _grows(shapes, self._rows(outputs[0][1])):
                return False
        return True

    def _place_before(self, value: int) -> int | None:
        """Return the number of the last place that a value is made by way of."""
        return max((number for number, place in enumerate(self.places) if has(place.behind, value)), default=None)

    def _rows(self, value: int) -> int:
        """Return how many rows a value has in the third forward."""
        number = self._place_before(value)
        return IMAGES if number is None else self.rows[number]


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
