"""What masking reports is the worth of an op, not its weight: τ is set by hand to favour a useless one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
from loud_cases import LOUD, NEEDED, NORMS, OPS, node_run, planted_run, scored_as, useless_run

from image2video.search.run import SearchRun
from image2video.search.select.selection import get_selection
from image2video.search.state.units import Unit

FEW = dict.fromkeys(("batch", "layer", "group", "none"), range(1))
SEEDS = {"batch": range(5), "layer": range(5), "group": range(2), "none": range(2)}
BY_SEEDS = pytest.mark.parametrize("seeds", [FEW, pytest.param(SEEDS, marks=pytest.mark.slow)], ids=["few", "all"])
OURS: dict[str, Any] = {"score_statistics": "batch", "renormalise": True}
PUBLISHED: dict[str, Any] = {"score_statistics": "batch", "renormalise": False}
OLD: dict[str, Any] = {"score_statistics": "running", "renormalise": False}

trained = cache(planted_run)  # trained once, scored in several ways


def decided(run: SearchRun, kind: str, index: int, **options: Any) -> dict[str, Any]:
    """The record of one decision."""
    scored_as(run, **options)
    get_selection("perturbation").decide(Unit(kind, index), run)
    return (run.state.edges if kind == "edge" else run.state.nodes)[-1]


@BY_SEEDS
@pytest.mark.parametrize("norm", NORMS)
def test_the_op_that_is_needed_is_chosen_whatever_is_loud(norm: str, seeds: Mapping[str, range]) -> None:
    """An edge: the cue of the class is out of sight without the first op, and another op has 0.4 of the weight."""
    for seed in seeds[norm]:
        run = trained(norm, LOUD, 0.4, seed)
        entry = decided(run, "edge", 0, **OURS)
        assert entry["weights"][LOUD] == pytest.approx(0.4)
        assert entry["accuracy"] > 0.85, (norm, seed)
        assert entry["chosen"] == NEEDED, (norm, seed, entry["masked_accuracy"])
        assert entry["decided"]


def test_running_statistics_miss_it() -> None:
    """The defect: under statistics of the whole clip, a clip that is smaller costs more than one without its cue."""
    runs = [trained("batch", LOUD, 0.4, seed) for seed in SEEDS["batch"][:3]]
    assert [decided(run, "edge", 0, **OLD)["chosen"] for run in runs].count(NEEDED) < 2
    assert [decided(run, "edge", 0, **PUBLISHED)["chosen"] for run in runs] == [NEEDED] * 3


@pytest.mark.parametrize("norm", ["layer", "group", "none"])
def test_without_batch_norms_only_renormalising_helps(norm: str) -> None:
    """Here the statistics of the batch change nothing: without the weight of any op, every image counts as dark."""
    entries = [decided(trained(norm, LOUD, 0.4, seed), "edge", 0, **PUBLISHED) for seed in FEW[norm]]
    assert not any(entry["decided"] for entry in entries)
    assert all(max(entry["masked_accuracy"]) < 0.6 for entry in entries)


@BY_SEEDS
@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_the_edge_that_is_needed_stays_whatever_else_comes_in(norm: str, seeds: Mapping[str, range]) -> None:
    """A node: three edges come in, and one of them brings the cue."""
    for seed in seeds[norm]:
        run, needed = node_run(norm, seed)
        get_selection("perturbation").decide(Unit("node", 3), run)
        (entry,) = run.state.nodes
        assert run.state.decisions.sources[3] == needed, (norm, seed, entry["masked_accuracy"])
        assert entry["edges"][entry["chosen"]] == needed
        assert entry["decided"]
        assert [len(found["edges"]) for found in entry["rounds"]] == [3, 2]
        assert {found["removed"] for found in entry["rounds"]} == set(entry["edges"]) - {needed}


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_a_loud_op_that_is_useless_is_not_called_decided(norm: str, seed: int) -> None:
    """The class is in sight whatever the ops do, so none of them can be decided."""
    entry = decided(useless_run(norm, seed), "edge", 0, **OURS)
    assert entry["accuracy"] > 0.9
    assert not entry["decided"], entry["masked_accuracy"]
    assert len(OPS) == len(entry["masked_accuracy"])
