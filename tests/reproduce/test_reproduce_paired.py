"""Gaps that are paired by seed and image: against formulas, and as tables and figures show them."""

import dataclasses
import json

import numpy as np
import pytest
from measured_cases import IMAGES, measured_rows
from reproduce_cases import TABLE, pretended, table

from image2video.errors import InputError
from image2video.reproduce import load_experiment
from image2video.reproduce.gains import row_curves, row_gains
from image2video.reproduce.paired import paired_gap
from image2video.reproduce.render import markdown, write
from image2video.reproduce.render_measures import gap_cells, measured

__all__ = ["pretended"]  # a fixture


def answers(share, seeds=3, shift=0):
    """The first images right, the same for every seed but for `shift` more each."""
    return {seed: np.arange(IMAGES) < share * IMAGES + seed * shift for seed in range(seeds)}


def test_the_mean_is_over_shared_seeds_and_the_sign_is_a_minus_b():
    gap = paired_gap([answers(0.75)], [answers(0.5, seeds=2)])
    assert (gap.mean, gap.seeds, gap.images) == (25.0, 2, IMAGES)
    assert gap.low < 25 < gap.high
    assert paired_gap([answers(0.5)], [answers(0.75)]).mean == -25
    assert paired_gap([answers(0.5, seeds=1)], [{7: np.ones(IMAGES, bool)}]) is None
    assert paired_gap([], [answers(0.5)]) is None


def test_equal_answers_have_no_gap_and_no_width():
    gap = paired_gap([answers(0.5)], [answers(0.5)])
    assert (gap.mean, gap.low, gap.high, gap.reading) == (0, 0, 0, "undecided")


def test_with_one_seed_the_interval_is_that_of_the_images():
    gap = paired_gap([answers(0.6, seeds=1)], [answers(0.5, seeds=1)])
    error = 100 * np.sqrt(0.1 * 0.9 / IMAGES)  # a tenth of the images differ
    assert gap.high - gap.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert gap.reading == "one seed"  # images alone decide nothing about trainings


def test_the_spread_of_seeds_is_in_the_interval():
    calm = paired_gap([answers(0.6, seeds=8)], [answers(0.5, seeds=8)])
    restless = paired_gap([answers(0.5, seeds=8, shift=12)], [answers(0.5, seeds=8)])
    gaps = 100 * np.arange(8) * 12 / IMAGES
    over_seeds = gaps.std() / np.sqrt(8)
    assert restless.high - restless.low > 2 * 1.96 * over_seeds * 0.9
    assert restless.high - restless.low > 1.5 * (calm.high - calm.low)


def test_ahead_and_behind_need_both_intervals():
    better = {0: answers(0.6)[0], 1: answers(0.61)[0], 2: answers(0.62)[0]}
    assert paired_gap([better], [answers(0.5)]).reading == "ahead"
    assert paired_gap([answers(0.5)], [better]).reading == "behind"
    lucky = {0: answers(0.5)[0], 1: answers(0.51)[0], 2: answers(0.65)[0]}
    unsure = paired_gap([lucky], [answers(0.5)])
    assert unsure.over_seeds.low < 0
    assert unsure.reading == "undecided"
    # Two seeds leave a wide t interval, whatever the images say.
    wide = paired_gap([{0: better[0], 1: answers(0.7)[0]}], [answers(0.5, seeds=2)])
    assert wide.low > 0
    assert wide.reading == "undecided"


def test_the_spread_of_a_pool_is_in_the_interval_over_seeds():
    better = {0: answers(0.6)[0], 1: answers(0.61)[0], 2: answers(0.62)[0]}
    alike, apart = [answers(0.5), answers(0.5)], [answers(0.3), answers(0.7)]
    assert paired_gap([better], apart).over_seeds.half_width > 10 * paired_gap([better], alike).over_seeds.half_width


def test_a_pool_counts_as_the_mean_of_its_arms():
    pool = [answers(0.25), answers(0.75)]
    assert paired_gap([answers(0.75)], pool).mean == 25
    assert paired_gap(pool, [answers(0.5)]).mean == 0


def test_other_test_sets_are_refused():
    with pytest.raises(InputError, match="tested on 10 and 400 images"):
        paired_gap([answers(0.5, seeds=1)], [{0: np.ones(10, bool)}])


@pytest.fixture
def rows(tmp_path, pretended, monkeypatch):
    """A table whose runs were measured, and the outcome of its one row."""
    return measured_rows(tmp_path, pretended, monkeypatch)


def test_a_measured_row_shows_measures_and_gaps(rows, tmp_path):
    experiment, (outcome,) = rows
    assert [line.arm.name for line in measured(outcome)] == [arm["name"] for arm in TABLE["arms"]]
    ((lead, a, b, points, interval, over_seeds, n, reading),) = gap_cells(outcome)
    assert (lead, a, b, points, n) == (
        *("at equal compute", "translation, TSM", "bare network, T times the epochs"),
        *("+20.00", "2"),
    )
    assert "…" in interval
    assert "…" in over_seeds
    assert reading == "undecided"  # both seeds differ by the same, which gives no interval
    text = markdown(experiment, "smoke", [outcome])
    for part in (
        "| bare network | bare | 1.000 | 0.900 | 1.2 % | 95.0 % | 90.0 % | 1 |",
        "Comparisons: 1",
        "own-smoke-gains.png",
    ):
        assert part in text
    files = write(experiment, "smoke", [outcome], tmp_path)
    for kind in ("png-gains", "png-curves"):
        assert files[kind].read_bytes().startswith(b"\x89PNG")
        assert f"]({files[kind].name})" in text
    (gap,) = json.loads(files["json"].read_text())["rows"][0]["gaps"]
    assert (gap["points"], gap["n"], gap["images"], gap["a_is"]) == (20.0, 2, IMAGES, "undecided")
    assert "right" not in files["json"].read_text().replace("copyright", "")


def test_gains_stand_in_the_order_of_costs_over_the_bare_network_at_equal_compute(rows):
    _, (outcome,) = rows
    figure = row_gains(outcome)
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["bare", "averaged", "moving"]
    assert axis.get_ylabel() == "points over “bare_long”"
    means = [float(line.get_ydata()[0]) for container in axis.containers for line in [container.lines[0]]]
    assert means == [-10, 0, 20]


def test_curves_are_those_of_the_bare_networks(rows):
    _, (outcome,) = rows
    epochs, _ = row_curves(outcome).axes
    titles = [line.get_label() for line in epochs.lines if not line.get_label().startswith("_")]
    assert titles == ["bare network", "bare network, T times the epochs"]
    assert {tuple(line.get_ydata()) for line in epochs.lines} == {(41.0, 42.0, 43.0)}
    wrapped = tuple(arm for arm in outcome.result.arms if arm.fusion is not None)
    assert row_curves(dataclasses.replace(outcome, result=dataclasses.replace(outcome.result, arms=wrapped))) is None


def test_without_the_reference_there_are_no_gains(rows):
    _, (outcome,) = rows
    lines = tuple(line for line in outcome.lines if line.arm.name != "bare_long")
    assert row_gains(dataclasses.replace(outcome, lines=lines)) is None
    only = tuple(line for line in outcome.lines if line.arm.name == "bare_long")
    assert row_gains(dataclasses.replace(outcome, lines=only)) is None


def test_gains_need_the_bare_network_at_equal_compute(tmp_path):
    arms = [arm for arm in TABLE["arms"] if arm["name"] in ("bare", "moving")]
    with pytest.raises(InputError, match="figure: gains needs an arm with equal_compute: true"):
        load_experiment(str(table(tmp_path, arms=arms, contrasts=[], figure="gains")))
