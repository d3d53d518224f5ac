"""Problems that other packages build: a network, its images and a task, from one text such as `mmseg:CONFIG`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

from torch import nn

from image2video.errors import InputError, InputTypeError, MissingError
from image2video.protocols import ImageSet
from image2video.search.score.task import Task
from image2video.settings.search import SearchConfig

ENTRY_POINT_GROUP = "image2video.tasks"
"""Packages announce who builds a problem as an entry point of this group: `mmseg = package.module:build`."""

HELD_OUT = ("train", "val")


@dataclass(frozen=True)
class Request:
    """What a builder is told beside its own text.

    Attributes:
        config: the settings of the search.
        train_images: how many training images to use; None for all.
        holdout: for `fixed_weights`: the share of the training images that chains are ranked on.
        held_out: where held-out images come from: `train` (a part of the training images) or `val` (a set of their
            own, never the test set).
        size: (height, width) of held-out images; None for what the builder thinks right.
        weights: trained weights to start from; None for fresh ones.
        workers: processes that read images; None for the builder's default.
    """

    config: SearchConfig = field(default_factory=SearchConfig)
    train_images: int | None = None
    holdout: float = 0.1
    held_out: str = "train"
    size: tuple[int, int] | None = None
    weights: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.held_out not in HELD_OUT:
            raise InputError(f"held-out images come from {' or '.join(HELD_OUT)}, got {self.held_out!r}")
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise InputError(f"the size of held-out images is (height, width) in pixels, got {self.size!r}")
        if self.train_images is not None and self.train_images < 2:
            raise InputError(f"train_images must be at least 2, got {self.train_images}")


@dataclass(frozen=True)
class Problem:
    """What a search needs to know, from whoever builds it.

    Attributes:
        short_name: of the data, without folders, for records that travel.
        model: the network's name, for records.
        network: the bare network, on the CPU.
        train: the training images.
        holdout: held-out images in place of a part split from `train`; None where there are none.
        task: what the network is for.
        classes: their names, in the order of the labels.
        input_size: (C, H, W) of held-out images.
        mean: per channel in 0 … 1, as used to normalise.
        std: goes with `mean`.
        what_tells: how to find out whether a genotype is better than a random one; goes on after a semicolon.
        settings: JSON values that decide the result beside the options; a resumed search must share them.
        notes: what the user should know before it begins, a sentence each.
    """

    short_name: str
    model: str
    network: nn.Module
    train: ImageSet
    holdout: ImageSet | None
    task: Task
    classes: tuple[str, ...]
    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    what_tells: str
    settings: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """Counts and sizes.

        Returns:
            JSON values.
        """
        return {
            "name": self.short_name,
            "train_images": self.train.num_images,
            "holdout_images": 0 if self.holdout is None else self.holdout.num_images,
            "classes": len(self.classes),
            "input_size": list(self.input_size),
            "task": self.task.name,
        }


def build_problem(text: str, request: Request | None = None) -> Problem:
    """What the builder of `BUILDER:WHAT` makes of WHAT.

    Args:
        text: such as `mmseg:CONFIG`.
        request: what the builder is told beside it.

    Returns:
        The problem.

    Raises:
        InputError: a text of another form.
        MissingError: no installed package announces the builder, or a library that it needs is not installed.
        InputTypeError: a builder that returns no `Problem`; builders raise errors of their own beside these.
    """
    name, colon, what = text.partition(":")
    if not (name and colon and what):
        raise InputError(f"a task is BUILDER:WHAT, as in mmseg:CONFIG; got {text!r}")
    found = {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in found:
        raise MissingError(
            f"no installed package builds the task {text!r}: the entry points of the group {ENTRY_POINT_GROUP!r} are "
            f"{sorted(found) or 'none'}; install the package that has {name!r}"
        )
    try:
        build = found[name].load()
    except ImportError as error:
        raise MissingError(
            f"the task {name!r} cannot be built here ({error}); install what it needs, for a task "
            f"of image2video's own by pip install '.[{name}]' in a clone"
        ) from error
    problem = build(what, request or Request())
    if not isinstance(problem, Problem):
        raise InputTypeError(f"the builder of the task {name!r} must return a Problem, got {type(problem).__name__}")
    return problem
