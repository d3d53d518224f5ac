"""Whether a table can run: every arm of every row is built and called on the meta device, without data or memory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from image2video import VideoWrap
from image2video.clip.genotype import DEFAULT_GENOTYPE, Genotype
from image2video.clip.image_to_video import Image2Video
from image2video.data import Augmentation, DataSource, MemorySet
from image2video.errors import InputError, StateError
from image2video.experiments.genotypes import Chosen
from image2video.reproduce.book import Run
from image2video.reproduce.classify import choose, fresh_network, wrapped
from image2video.reproduce.data import without_mmsegmentation
from image2video.reproduce.genotypes import data_settings
from image2video.reproduce.size import Network, call_once
from image2video.reproduce.spec import Cell, Experiment, Setting
from image2video.reproduce.work import Worker

SHAPES: Mapping[str, tuple[int, int, int]] = {
    "digits": (10, 1, 16),
    "cifar10": (10, 3, 32),
    "cifar100": (100, 3, 32),
    "tiny": (200, 3, 224),
    "imagenet": (1000, 3, 224),
    "imagenet_sample": (1000, 3, 128),
}
"""Data set -> (classes, channels, pixels along a side) of its images as they are loaded where no size is given."""

_BARE = Cell("bare", "bare network")
_UNKNOWN_BEFORE = ("searched", "fixed_weights")
_Key = tuple[object, ...]


@dataclass(frozen=True)
class CheckedArm:
    """An arm of a row: its network, or why there is none. `frames` per image, `epochs` of training."""

    row: str
    arm: Cell
    setting: Setting
    frames: int
    epochs: int
    network: Network | None
    problem: str | None = None


def with_rows(experiment: Experiment, scale: str, pattern: str) -> Experiment:
    """The rows of a table at a scale whose names hold a regular expression.

    Raises `InputError` for a broken expression, where no row fits, and where there are no rows.
    """
    names = [row.name for row in experiment.rows if scale in row.settings]
    if not names:
        raise InputError(
            f"{experiment.name} has no rows at scale {scale!r}, of which {pattern!r} could choose; leave --rows out"
        )
    try:
        found = tuple(row for row in experiment.rows if row.name in names and re.search(pattern, row.name))
    except re.error as error:
        raise InputError(f"{pattern!r} is no regular expression: {error}") from error
    if not found:
        raise InputError(
            f"no row of {experiment.name} at scale {scale!r} fits {pattern!r}; they are {'; '.join(names)}"
        )
    return replace(experiment, rows=found)


def check(experiment: Experiment, scale: str = "paper") -> tuple[CheckedArm, ...]:
    """Build every arm of every row of a table at a scale, and call it once for the shapes; one line each.

    No data set is read, no memory is used for weights, nothing is computed: parameters are on the meta device. The
    recipe, the policy, the search's settings and the clip of an arm are made for real. What is found only by a search,
    or for trained weights, has the library's default genotype in its stead, which costs the same; the bare network of a
    search on other data is built, too. An arm that fails has a `problem`; so have all of segmentation where
    mmsegmentation is not installed.

    Raises `InputError` for an unknown scale, or one at which the table has no row.
    """
    done: dict[_Key, Network] = {}
    lines: dict[tuple[str, str], CheckedArm] = {}
    for run in Worker.planned(experiment, scale):
        if (run.row, run.arm.name) not in lines:
            lines[run.row, run.arm.name] = _checked(run, done)
    return tuple(lines.values())


def _checked(run: Run, done: dict[_Key, Network]) -> CheckedArm:
    arm, setting = run.arm, run.setting
    frames, epochs = arm.frames_per_image(arm.frames(setting)), arm.total_epochs(setting)
    try:
        network, problem = _network(run, done), None
    except Exception as error:  # whatever stops one arm, the others are still to be checked
        network, problem = None, f"{type(error).__name__}: {error}"
    return CheckedArm(run.row, arm, setting, frames, epochs, network, problem)


def _network(run: Run, done: dict[_Key, Network]) -> Network:
    arm, setting = run.arm, run.setting
    for other in data_settings(arm, setting)[1:]:
        other.searching()
        _network(replace(run, arm=_BARE, setting=other), done)
    if setting.config is not None:
        return _segmentor(run)
    data = stand_in(setting)
    setting.training(max(1, arm.total_epochs(setting)), run.seed, finetune=arm.budget == "finetune")
    if arm.augment is not None:
        Augmentation.parse(arm.augment.removeprefix("search:")).check_channels(data.input_size[0])
    chosen = _chosen(arm, setting, data)
    T, schedule = arm.frames(setting), arm.schedule or setting.clip_schedule
    if chosen is not None:
        Image2Video(chosen.genotype, T=T, schedule=schedule, mean=data.mean, std=data.std)
    starts = (arm.start is not None or setting.weights is not None) and arm.fusion not in (None, "none")
    key: _Key = (
        setting.model,
        data.classes,
        data.input_size,
        arm.variant,
        arm.fusion,
        arm.learned,
        arm.layout,
        arm.sites,
        arm.clip_at,
        starts,
    )
    key += (T if arm.fusion is not None else 1,)
    if key not in done:
        done[key] = _built(arm, setting, data, run.seed, chosen)
    return done[key]


def _segmentor(run: Run) -> Network:
    try:
        from image2video.reproduce.segment_check import check_segmentor
    except ImportError as error:
        raise without_mmsegmentation(run.setting, error) from error
    return check_segmentor(run, _chosen(run.arm, run.setting, None))


def _built(arm: Cell, setting: Setting, data: DataSource, seed: int, chosen: Chosen | None) -> Network:
    with torch.device("meta"):
        bare = fresh_network(arm, setting, data, seed)
    model = wrapped(bare, arm, setting, data, seed, chosen).eval()
    out, parameters, macs = call_once(model, data.input_size)
    if out.shape != (1, data.num_classes):
        raise StateError(f"one image must give (1, {data.num_classes}), got {tuple(out.shape)}")
    sites = len(model.plan.sites) if isinstance(model, VideoWrap) else 0
    return Network(data.input_size, data.num_classes, sites, parameters, macs)


def stand_in(setting: Setting) -> DataSource:
    """A data set like a setting's, with one black image: its classes and sizes are true, nothing is read.

    Raises `InputError` for a data set whose shape is not in `SHAPES`.
    """
    if setting.data not in SHAPES:
        raise InputError(f"the classes and sizes of {setting.data!r} are not known; known are {', '.join(SHAPES)}")
    classes, channels, side = SHAPES[setting.data]
    side = setting.image_size or side
    mean, std = (0.5,) * channels, (0.25,) * channels
    black = torch.zeros(1, channels, side, side, dtype=torch.uint8)
    images = MemorySet(black, torch.zeros(1, dtype=torch.int64), mean=mean, std=std)
    names = tuple(str(index) for index in range(classes))
    return DataSource(setting.data, images, None, images, names, (channels, side, side), mean, std)


def _chosen(arm: Cell, setting: Setting, data: DataSource | None) -> Chosen | None:
    word = arm.genotype.partition("@")[0]
    if word == "searched":
        setting.searching()
    if word in _UNKNOWN_BEFORE:
        return Chosen(Genotype.coerce(DEFAULT_GENOTYPE), "stands in for what is found later")
    nothing: Any = None  # genotypes that are drawn or stated need neither data nor a folder nor a device
    return choose(arm, setting, data or nothing, nothing, nothing, load=nothing)
