"""The figure of gains against cost."""

import itertools

import pytest

from image2video.errors import InputError
from image2video.report.gains import Gain, gains_figure


def gain(name, macs, mean=1.0, kind="averaged", seeds=3):
    return Gain(name, kind, macs, mean, mean - 0.5, mean + 0.25, seeds)


def test_arms_stand_by_cost_and_those_of_equal_cost_together():
    gains = [gain("dear", 3e6), gain("cheap", 1e6), gain("dear too", 3.01e6, kind="fused"), gain("middle", 2e6)]
    (axis,) = gains_figure(gains, "long", 1e6).axes
    names = [label.get_text() for label in axis.get_xticklabels()]
    assert names == ["cheap", "middle", "dear", "dear too"]
    places = list(axis.get_xticks())
    steps = [after - before for before, after in itertools.pairwise(places)]
    assert steps == [1.5, 1.5, 1.0]
    assert [text.get_text() for text in axis.texts] == ["1.00 M\n1×", "2.00 M\n2×", "3.00 M\n3×"]


def test_intervals_are_those_given_and_one_seed_is_hollow():
    (axis,) = gains_figure([gain("one", 1e6, mean=2.0, seeds=1), gain("two", 1e6)], "long", 1e6).axes
    hollow, full = (container.lines[0] for container in axis.containers)
    assert hollow.get_markerfacecolor() == "none"
    assert full.get_markerfacecolor() != "none"
    ((low, high),) = [segment[:, 1] for segment in axis.containers[0].lines[2][0].get_segments()]
    assert (low, high) == (1.5, 2.25)


def test_nothing_to_draw_is_refused():
    with pytest.raises(InputError, match="no arm is measured beside 'long'"):
        gains_figure([], "long", 1e6)
