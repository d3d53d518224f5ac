"""A cut is a value without which no image reaches a later output."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from image2video.trace.cuts import Cuts, Edge
from image2video.trace.graph import Graph
from image2video.trace.recorder import Trace, Value
from image2video.trace.trace import trace_forward


def made_by_hand(parents: list[set[int]], outputs: set[int]) -> Trace:
    """A trace whose values have these parents; value 0 is the images, a value without parents a constant."""
    trace = Trace()
    for index, above in enumerate(parents):
        depends = index == 0 or any(trace.values[parent].depends for parent in above)
        trace.values.append(Value(index, "op", (2, 4), tuple(sorted(above)), tuple(sorted(above)), depends=depends))
    trace.outputs = [(f"[{place}]", value) for place, value in enumerate(sorted(outputs))]
    return trace


def reached(parents: list[set[int]], without: int) -> set[int]:
    """What the images reach when one value is taken out."""
    found = {0} - {without}
    for index, above in enumerate(parents):
        if index != without and above & found:
            found.add(index)
    return found


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[set[int]], set[int]]:
    """Parents of up to a dozen values, and which values are outputs."""
    count = draw(st.integers(2, 12))
    parents: list[set[int]] = [set()]
    for index in range(1, count):
        # Most often from near ahead, as in a network.
        parents.append(draw(st.sets(st.integers(max(0, index - 4), index - 1), max_size=2)))
    return parents, draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=3))


@given(graphs())
@settings(deadline=None)
def test_without_a_cut_no_image_reaches_a_later_output(case: tuple[list[set[int]], set[int]]) -> None:
    parents, outputs = case
    trace = made_by_hand(parents, outputs)
    cuts = Cuts(Graph(trace))
    for value in trace.values:
        if not cuts.is_live(value.index):
            assert not cuts.is_cut(value.index)
            continue
        later = {output for output in outputs if output > value.index}
        disconnected = not later & reached(parents, without=value.index)
        edge = cuts.bypass(value.index)
        assert cuts.is_cut(value.index) == disconnected == (edge is None)
        if edge is not None:
            assert edge.producer in parents[edge.user]
            assert edge.producer < value.index < edge.user
    assert cuts.cuts() == [value.index for value in trace.values if cuts.is_cut(value.index)]


def test_an_output_before_a_value_does_not_count_against_it() -> None:
    # images → 1 → 2 → 3, with outputs 1 and 3; and 1 → 3 as a skip.
    assert Cuts(Graph(made_by_hand([set(), {0}, {1}, {2}], {1, 3}))).cuts() == [0, 1, 2, 3]
    assert Cuts(Graph(made_by_hand([set(), {0}, {1}, {1, 2}], {1, 3}))).cuts() == [0, 1, 3]


def test_what_no_output_needs_leads_past_nothing() -> None:
    cuts = Cuts(Graph(made_by_hand([set(), {0}, {1}, {1}, {2}], {4})))
    assert not cuts.is_live(3)
    assert cuts.cuts() == [0, 1, 2, 4]


def test_a_constant_leads_past_nothing() -> None:
    assert Cuts(Graph(made_by_hand([set(), set(), {0}, {1, 2}], {3}))).cuts() == [0, 2, 3]


def test_without_tensors_among_the_outputs_everything_is_needed() -> None:
    cuts = Cuts(Graph(made_by_hand([set(), {0}, {1}, {1}], set())))
    assert cuts.cuts() == [0, 1, 3]  # value 3 goes past value 2


class Skip(nn.Module):
    """Down and up again, with a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.deep = nn.Conv2d(8, 8, 3, padding=1)
        self.up = nn.Sequential(nn.Conv2d(16, 4, 1))
        self.join = Join()

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(x)
        return self.up(self.join(self.deep(skip), skip))


class Join(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.cat([a, b], 1)


def test_what_leads_past_a_value_is_named() -> None:
    graph = Graph(trace_forward(Skip(), torch.zeros(1, 3, 8, 12)))
    cuts = Cuts(graph)
    deep = next(call for call in graph.calls if call.name == "deep").outputs[0]
    edge = cuts.bypass(deep)
    assert edge is not None
    assert (cuts.producer_name(edge), cuts.user_name(edge)) == ("down", "join")
    assert cuts.producer_name(Edge(0, deep)) == "(images)"
    assert cuts.bypass(next(call for call in graph.calls if call.name == "up").inputs[0]) is None
