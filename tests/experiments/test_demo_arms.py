"""The arms as data: controls at equal compute, starts, budgets, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest

from image2video.data import load_data
from image2video.errors import InputError
from image2video.experiments import (
    Arm,
    DemoConfig,
    check_arms,
    select_arms,
    standard_arms,
    standard_contrasts,
    training_frames,
)


@pytest.mark.parametrize("T", [2, 3, 5])
def test_equal_compute_means_equal_frames(T: int) -> None:
    arms = standard_arms(T, "tsm", translation="translate_x(0.03125)")
    frames = training_frames(arms, images=100, T=T, epochs=4, finetune_epochs=3)
    assert frames["bare"] == 400
    same = {"bare_long", "none", "replica", "random", "searched", "translation"}
    assert {frames[name] for name in same} == {400 * T}
    assert frames["averaged"] == 0
    assert {frames[name] for name in ("tuned_bare", "tuned_none", "tuned")} == {300 * T}
    assert len(frames) == 11


def test_the_controls_that_a_fair_comparison_needs_are_there() -> None:
    arms = {arm.name: arm for arm in standard_arms(3)}
    described = {name: (arm.genotype, arm.fusion, arm.epochs_factor) for name, arm in arms.items() if arm.start is None}
    assert described == {
        "bare": ("none", None, 1),
        "bare_long": ("none", None, 3),
        "none": ("searched", "none", 1),
        "replica": ("identity", "gsf", 1),
        "random": ("random", "gsf", 1),
        "searched": ("searched", "gsf", 1),
    }
    assert {arm.start for arm in arms.values() if arm.start} == {"bare_long"}


def test_contrasts_name_existing_arms_and_hold_the_equal_compute_question() -> None:
    arms = standard_arms(3, translation="translate_x(0.03125)")
    contrasts = standard_contrasts(translation=True)
    check_arms(arms, contrasts)
    compute = next(c for c in contrasts if c.name == "equal_compute")
    assert (compute.a, compute.b, compute.headline) == ("searched", "bare_long", True)
    with pytest.raises(InputError, match="contrast 'translation' names the arm 'translation'"):
        check_arms(standard_arms(3), contrasts)


def test_the_demo_stays_within_its_frames() -> None:
    config = DemoConfig()
    images = load_data(config.data, train_images=config.train_images, holdout=config.holdout).train.num_images
    settings = {
        "images": images,
        "T": config.frames,
        "epochs": config.epochs,
        "finetune_epochs": config.finetune_epochs,
    }
    arms = training_frames(standard_arms(config.frames), **settings)
    # Two batches of clips per step of the search; then an epoch of tuning after each of the cell's ten edges.
    search = images * config.frames * (2 * config.search_epochs + 10 * config.tune_epochs)
    assert 0.2e6 < config.seeds * sum(arms.values()) + search < 0.3e6


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"genotype": "identity"}, "genotype='identity' and fusion=None"),
        ({"fusion": "gsf"}, "genotype='none' and fusion='gsf'"),
        ({"budget": "finetune"}, "needs start="),
        ({"genotype": "fixed_weights", "fusion": "gsf"}, "needs start="),
        ({"epochs_factor": 0}, "epochs_factor must be at least 1, got 0"),
    ],
)
def test_an_arm_that_contradicts_itself_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Arm("a", "an arm", **fields)


def test_starts_must_be_bare_and_come_first() -> None:
    bare, wrapped = Arm("bare", "bare"), Arm("wrapped", "wrapped", "identity", "gsf")
    tuned = Arm("tuned", "tuned", "identity", "gsf", "finetune", start="bare")
    check_arms([bare, tuned])
    with pytest.raises(InputError, match="starts from 'bare'"):
        check_arms([tuned, bare])
    with pytest.raises(InputError, match=r"'wrapped'; that must be a bare arm listed before it, one of bare"):
        check_arms([bare, wrapped, dataclasses.replace(tuned, start="wrapped")])
    with pytest.raises(InputError, match="two arms are called 'bare'"):
        check_arms([bare, bare])


def test_selected_arms_bring_what_they_start_from() -> None:
    arms = standard_arms(3)
    assert [arm.name for arm in select_arms(arms, ["tuned", "bare"])] == ["bare", "bare_long", "tuned"]
    assert select_arms(arms, None) == arms
    with pytest.raises(InputError, match="unknown arm 'best'"):
        select_arms(arms, ["best"])


@pytest.mark.parametrize(
    "change", [{"frames": 0}, {"seeds": 0}, {"holdout": 0.0}, {"holdout": 1.0}, {"tune_epochs": -1}]
)
def test_config_refuses(change: dict) -> None:
    with pytest.raises(InputError, match=next(iter(change))):
        DemoConfig(**change)


def test_arms_of_a_seed_share_their_recipe() -> None:
    config = DemoConfig(seed=4, seeds=2)
    assert config.all_seeds == (4, 5)
    short, long = config.training(2, 4, finetune=False), config.training(6, 4, finetune=False)
    assert dataclasses.replace(short, epochs=6, warmup_epochs=long.warmup_epochs) == long
    assert config.training(2, 4, finetune=True).peak_lr == config.finetune_lr
