"""`search(selection="greedy_frames")`, and the choices of a ranking in the settings of a search."""

import json
from pathlib import Path

import pytest
from search_cases import Pixels, blobs, config, tiny_network

from image2video.clip.frame_set import FrameSet
from image2video.errors import InputError, StateError
from image2video.search import (
    SegmentationTask,
    Selection,
    Unit,
    greedy_frames,
    register_selection,
    search,
)

GREEDY = {"selection": "greedy_frames", "T": 4, "candidates": 12, "padding": "reflection", "batch_size": 64}


def test_a_search_chooses_what_greedy_frames_chooses(tmp_path: Path) -> None:
    data = blobs(90, 1)
    result = search(tiny_network(seed=3), data, config(**GREEDY), out=tmp_path / "run", provenance={"dataset": "blobs"})
    alone = greedy_frames(tiny_network(seed=3), data, count=12, T=4)
    assert isinstance(result.genotype, FrameSet)
    assert result.genotype == alone.best
    assert result.frame_choice.to_dict() == alone.to_dict()
    assert result.frames == alone.evaluated
    assert result.decided_sentence() == alone.sentence()
    stored = json.loads((tmp_path / "run" / "genotype.json").read_text())
    assert stored["schema_version"] == 2
    loaded = FrameSet.load(tmp_path / "run" / "genotype.json")
    assert loaded == alone.best
    assert loaded.provenance["dataset"] == "blobs"
    assert loaded.provenance["selection"] == "greedy_frames"
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert scores["frame_choice"] == json.loads(json.dumps(alone.to_dict()))
    assert scores["genotype"] == str(alone.best)


def test_equal_searches_write_equal_files(tmp_path: Path) -> None:
    for name in ("first", "second"):
        search(tiny_network(seed=3), blobs(90, 1), config(**GREEDY), out=tmp_path / name)
    for file in ("genotype.json", "scores.json", "tau.json"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_another_task_is_refused_before_the_folder_is_touched(tmp_path: Path) -> None:
    search(tiny_network(seed=3), blobs(90, 1), config(**GREEDY), out=tmp_path)
    before = (tmp_path / "genotype.json").read_bytes()
    with pytest.raises(InputError, match="greedy_frames averages the logits of images, and the task is segmentation"):
        search(Pixels(), blobs(9, 0), config(**GREEDY), task=SegmentationTask(2), out=tmp_path, overwrite=True)
    assert (tmp_path / "genotype.json").read_bytes() == before


def test_a_run_that_trains_chooses_no_frames() -> None:
    @register_selection("frames_of_a_trained_search")
    class Wrong(Selection):
        def units(self, space, config):
            return [Unit("choose")]

        def decide(self, unit, run):
            run.choose_frames()

    with pytest.raises(StateError, match=r"trains a network whose frames mix, .* it needs trains=False"):
        search(tiny_network(), blobs(40, 0), config(selection="frames_of_a_trained_search", fusion="tsm"))


def test_settings_name_what_a_ranking_chooses_from() -> None:
    choices = {
        "choose_frames": [2, 3],
        "choose_schedule": ["from_zero", "centred"],
        "choose_padding": ["zeros", "reflection"],
        "choose_aggregate": ["mean", "mean_prob"],
        "max_cost": 2,
    }
    result = search(
        tiny_network(seed=3), blobs(60, 1), config(selection="fixed_weights", candidates=3, batch_size=64, **choices)
    )
    clips = [entry for entry in result.ranking.entries if entry.genotype.chain]
    assert {entry.T for entry in clips} == {2}
    for name in ("schedule", "padding", "aggregate"):
        assert {getattr(entry, name) for entry in clips} == set(choices[f"choose_{name}"])
    best = result.ranking.best_entry
    assert result.genotype.provenance["T"] == best.T
    assert result.config.choose_frames == (2, 3)
    assert result.config.to_dict()["choose_frames"] == [2, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"choose_frames": 3}, "choose_frames must be a list of different values or None, got 3"),
        ({"choose_frames": []}, "choose_frames must be a list of different values"),
        ({"choose_frames": [2, 2]}, "choose_frames must be a list of different values"),
        ({"choose_frames": [0]}, "T, the number of frames, must be at least 1"),
        ({"choose_schedule": ["upwards"]}, "unknown schedule 'upwards'"),
        ({"choose_padding": "zeros"}, "choose_padding must be a list of different values or None, got 'zeros'"),
        ({"choose_padding": ["mirror"]}, "unknown padding 'mirror'"),
        ({"choose_aggregate": ["first"]}, "unknown aggregate 'first'"),
        ({"max_cost": 0.5}, "max_cost must be a finite number of at least 1, got 0.5"),
        ({"max_cost": "two"}, "max_cost must be a finite number of at least 1, got 'two'"),
    ],
)
def test_choices_that_cannot_be_made_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        config(selection="fixed_weights", **options)


def test_choices_without_effect_are_said() -> None:
    with pytest.warns(UserWarning, match=r"selection='random' does not use choose_frames=\(2, 3\)"):
        search(tiny_network(), blobs(40, 0), config(selection="random", choose_frames=[2, 3]))
    unused = {"choose_padding": ["zeros"], "max_minutes": 1.0}
    with pytest.warns(UserWarning, match=r"selection='greedy_frames' does not use .*choose_padding=.*max_minutes=1.0"):
        search(tiny_network(), blobs(40, 0), config(**{**GREEDY, **unused}))
