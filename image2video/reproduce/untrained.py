"""Rows in which nothing is trained: a network as its published weights are, and labelled images that are divided."""

from __future__ import annotations

from dataclasses import replace

from image2video.data import DataSource
from image2video.errors import InputError
from image2video.reproduce.spec import Cell, Experiment, Setting


def check_untrained_setting(setting: Setting) -> None:
    """Refuse a setting of 0 epochs that lacks a trained network, or that asks for what only training can vary.

    Raises:
        InputError: a config of segmentation, no weights, no measures, several seeds, or images by seed.
    """
    if setting.config is not None:
        raise InputError(
            f"epochs: 0 is for classification, got config={setting.config!r}; leave config out, or set epochs to at "
            "least 1"
        )
    if setting.weights is None:
        raise InputError(
            "epochs: 0 takes a network as its published weights are, and there are none; name them by weights, or set "
            "epochs to at least 1"
        )
    if not setting.measures:
        raise InputError("epochs: 0 needs measures: true, since test images decide where there is one seed")
    if setting.redraw or max(setting.seeds, *setting.more_seeds.values(), 1) > 1:
        raise InputError(
            "epochs: 0 trains nothing, so seeds have nothing to draw; set seeds to 1, and leave more_seeds and redraw "
            "out"
        )


def check_untrained_arms(experiment: Experiment) -> None:
    """Refuse an arm that is trained, or found by training, in a row in which nothing is.

    Raises:
        InputError: with the row, the arm and what it asks for.
    """
    for number, row in enumerate(experiment.rows):
        for scale, setting in row.settings.items():
            if setting.trains:
                continue
            for arm in experiment.arms_at(scale, row):
                asked = _training_of(arm)
                if asked is not None:
                    raise InputError(
                        f"{experiment.name}: rows[{number}].scales.{scale}: epochs: 0 trains nothing, and arm "
                        f"{arm.name!r} has {asked}; name it under the row's without"
                    )


def _training_of(arm: Cell) -> str | None:
    """What an arm says that takes training; None where it says nothing of the kind."""
    if arm.augment is not None:
        return f"augment: {arm.augment}"
    if arm.budget == "finetune":
        return "budget: finetune"
    if arm.genotype == "learned" or arm.genotype.partition("@")[0] == "searched":
        return f"genotype: {arm.genotype}"
    if arm.fusion not in (None, "none"):
        return f"fusion: {arm.fusion}"
    return None


def divided(data: DataSource, setting: Setting) -> DataSource:
    """The labelled images of a test part, divided into those that choose and those that are reported on.

    Args:
        data: read with its test part alone.
        setting: `train_images` says how many labelled images are used, None for all; `holdout` the share of them that
            chooses; `seed` draws both, by class.

    Returns:
        The data with both parts, and still without training images.

    Raises:
        InputError: fewer images than are asked for, or too few to divide.
    """
    images, held_out = data.test, None
    if setting.train_images is not None:
        images = images.take(setting.train_images, seed=setting.seed)
    if setting.holdout:
        held_out, images = images.split(setting.holdout, seed=setting.seed)
    return replace(data, holdout=held_out, test=images)
