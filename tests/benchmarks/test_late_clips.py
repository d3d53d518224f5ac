"""Gains by the place where a clip begins: what is divided by what, and which bars are drawn."""

import dataclasses
import importlib
import sys
from pathlib import Path

import pytest
from measured_cases import measured_rows
from reproduce_cases import pretended  # noqa: F401 (a fixture)

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
late_clips = importlib.import_module("late_clips")
sys.path.pop(0)


@pytest.fixture
def outcome(tmp_path, pretended, monkeypatch):  # noqa: F811
    """50 % of the images are right alone, 60 % with three times the epochs, 80 % with a clip."""
    _, (row,) = measured_rows(tmp_path, pretended, monkeypatch)
    return row


def renamed(outcome, names):
    lines = [
        dataclasses.replace(line, arm=dataclasses.replace(line.arm, name=names.get(line.arm.name, line.arm.name)))
        for line in outcome.lines
    ]
    return dataclasses.replace(outcome, lines=tuple(lines))


def test_a_place_keeps_shares_of_the_gain_and_of_the_cost_at_the_image(outcome):
    names = {"bare": "tilt_alone", "averaged": "tilt_image_2", "moving": "tilt_layer1_2"}
    image, layer = late_clips.place_rows(renamed(outcome, names))
    assert (image["pose"], image["place"], image["points"], image["share_of_gain"]) == (
        "tilted by 20°",
        "image",
        10.0,
        1,
    )
    assert (layer["place"], layer["points"], layer["share_of_gain"]) == ("layer1", 30.0, 3)
    alone, clip = (late_clips.line_of(outcome, name) for name in ("bare", "moving"))
    assert layer["cost"] == round(clip.macs / alone.macs, 2)
    assert layer["share_of_cost"] == round(clip.macs / alone.macs / 2, 2)


def test_places_that_were_not_run_are_left_out(outcome):
    assert list(late_clips.place_rows(outcome)) == []
    assert [row["way"] for row in late_clips.trained_rows(late_clips.TRAINED[0], outcome)] == ["bare"]


def test_trainings_are_told_by_their_whole_compute(outcome):
    own = late_clips.Trained("own", {"layer1": "moving"}, {"image": "never run"})
    longer, clip = late_clips.trained_rows(own, outcome)
    alone, moving = (late_clips.line_of(outcome, name) for name in ("bare", "moving"))
    assert longer["training"] == 2, "a clip of two frames: twice the epochs are equal compute"
    assert clip["training"] == round(moving.macs / alone.macs, 2), "equal epochs: what an image costs"
    assert (clip["points"], clip["over_long"], longer["over_long"]) == (30.0, 20.0, None)
    assert clip["low"] < 30 < clip["high"]


def test_the_figure_has_a_panel_per_pose_and_per_trained_setting(outcome):
    names = {"bare": "tilt_alone", "averaged": "tilt_image_2", "moving": "tilt_layer1_2"}
    trained = list(late_clips.trained_rows(late_clips.Trained("own", {"layer1": "moving"}, {}), outcome))
    found = {"places": list(late_clips.place_rows(renamed(outcome, names))), "trained": trained}
    titles = [axis.get_title() for axis in late_clips.figure(found).axes if axis.get_visible()]
    assert titles == [
        "digits tilted by 20°, nothing trained",
        "digits at 0.75 of the size, nothing trained",
        "digits",
    ]
    assert len(late_clips.figure({**found, "trained": []}).axes) == 2
