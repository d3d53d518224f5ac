"""What a table or figure of the paper is made of, as plain data: rows (data and network), arms, seeds, scales."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from image2video.demo import Arm
from image2video.report import Contrast
from image2video.search import SearchConfig, get_space
from image2video.training import TrainConfig
from image2video.version import __version__

SCALES = ("smoke", "cpu", "gpu", "paper")
_NOT_HASHED = ("seeds", "hours", "machine", "device")
"""What may change between runs that are compared: how many seeds, where they ran."""
_SHOWN = ("name", "title", "group", "pool", "scales", "start")
"""What an arm is called and where it stands; the arm that it starts from counts by its own key."""


@dataclass(frozen=True)
class Setting:
    """Everything that the runs of one row at one scale share.

    Attributes:
        data: name of the data set: `digits`, `cifar10`, `cifar100`, `tiny`, `imagenet`, or a name that `--data` gives.
        model: a timm model, or `REPRODUCE:NAME` for one of `image2video.reproduce.networks`.
        image_size: pixels per side; None for the data's own.
        train_images: labelled images to use, the held-out ones included; None for all.
        holdout: share of them set aside for choices; no choice sees the test set.
        T: frames of a clip.
        schedule: the power of each frame; None for that of the space.
        epochs: of a network from scratch.
        finetune_epochs: of one that starts from trained weights.
        batch_size: images per step.
        lr: peak learning rate from scratch.
        finetune_lr: peak learning rate from trained weights.
        recipe: further fields of `TrainConfig`.
        seeds: how many, from `seed` on.
        seed: the first; it also divides the data and seeds searches, which all seeds of a row share.
        space: search space, of the search and of random genotypes.
        search: further fields of `SearchConfig`; `epochs`, `tune_epochs` and `lr` are 6, 1 and `lr` without it.
        augment_minutes: what the search of an augmentation policy may take.
        hours: what the row is expected to take on `machine`, for scales that nobody runs by accident.
        machine: the machine of that estimate.
        config: a mmsegmentation config below `image2video.integrations.openmmlab.configs`, for rows of segmentation.
        options: `--cfg-options` of that config.
        device: auto, cpu, cuda or mps.

    """

    data: str = "digits"
    model: str = "cifar_resnet8"
    image_size: int | None = None
    train_images: int | None = None
    holdout: float = 0.1
    T: int = 3
    schedule: str | None = None
    epochs: int = 5
    finetune_epochs: int = 2
    batch_size: int = 64
    lr: float = 0.1
    finetune_lr: float = 0.02
    recipe: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 1
    seed: int = 0
    space: str = "affine5"
    search: Mapping[str, Any] = field(default_factory=dict)
    augment_minutes: float = 5.0
    hours: float | None = None
    machine: str | None = None
    config: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"

    @property
    def clip_schedule(self) -> str:
        """The power of each frame."""
        return self.schedule or get_space(self.space).schedule

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds, in order."""
        return tuple(range(self.seed, self.seed + self.seeds))

    def training(self, epochs: int, seed: int, *, finetune: bool) -> TrainConfig:
        """The recipe of one run."""
        warmup = 0.0 if finetune else min(1.0, epochs / 4)
        values = {"warmup_epochs": warmup, **self.recipe}
        lr = self.finetune_lr if finetune else self.lr
        return TrainConfig(epochs=epochs, batch_size=self.batch_size, lr=lr, seed=seed, device=self.device, **values)

    @property
    def search_options(self) -> dict[str, Any]:
        """What `search` says, over what holds without it."""
        return {"epochs": 6, "tune_epochs": 1, "lr": self.lr, **self.search}

    def searching(self) -> SearchConfig:
        """The settings of the one search of a row."""
        sizes: dict[str, Any] = {"T": self.T, "batch_size": self.batch_size, "seed": self.seed}
        return SearchConfig(space=self.space, residual=False, **sizes, **self.search_options)


@dataclass(frozen=True)
class Cell(Arm):
    """An arm of a table, with what only a reproduction varies.

    Attributes:
        T: frames, where they are not the setting's.
        schedule: the power of each frame, where it is not the setting's.
        magnitude: factor on every magnitude of the genotype.
        layout: `right`, or `scrambled` as in the authors' code (see `scramble.py`).
        variant: of the network: `dilated` or `kernel5` (Table 4), None for the network itself.
        augment: a policy for the training images, or `search:FAMILY` for one that is searched for (Table 7).
        learned: the ranges of motion are learned with the weights, and no held-out image is looked at (Augerino). It
            trains on the same images as the other arms, which look at none either while they train.
        equal_compute: T times the epochs, for the bare network: as many frames as a clip's.
        scales: the scales at which it runs.

    """

    T: int | None = None
    schedule: str | None = None
    magnitude: float = 1.0
    layout: str = "right"
    variant: str | None = None
    augment: str | None = None
    learned: bool = False
    equal_compute: bool = False
    scales: tuple[str, ...] = SCALES

    def frames(self, setting: Setting) -> int:
        """T of this arm."""
        return setting.T if self.T is None else self.T

    def total_epochs(self, setting: Setting) -> int:
        """Its epochs; 0 where it is not trained."""
        return self.epochs(setting.epochs, setting.finetune_epochs) * (
            self.frames(setting) if self.equal_compute else 1
        )


@dataclass(frozen=True)
class Row:
    """One line of a table: a data set with a network, what the paper reports for it, and its setting per scale."""

    name: str
    metric: str
    paper: Mapping[str, float]
    settings: Mapping[str, Setting]


@dataclass(frozen=True)
class Experiment:
    """A table or figure: rows × arms, and the questions that it answers."""

    name: str
    title: str
    source: str
    rows: tuple[Row, ...]
    arms: tuple[Cell, ...]
    contrasts: tuple[Contrast, ...]
    notes: str = ""
    figure: str | None = None

    def arms_at(self, scale: str) -> tuple[Cell, ...]:
        """The arms that run at a scale."""
        return tuple(arm for arm in self.arms if scale in arm.scales)


def run_key(setting: Setting, arm: Cell, start: str | None = None, version: str = __version__) -> str:
    """What tells the runs of a setting and an arm from all others: 12 hexadecimal digits.

    Titles, groups and the number of seeds do not count, so tables share runs; the library's version does. `start` is
    the key of the arm that this one starts from. A field that is added to `Setting` or `Cell` changes all keys, and so
    parts the results from earlier ones: it should be left out of the text where it has its default value.
    """
    told = {k: v for k, v in dataclasses.asdict(setting).items() if k not in _NOT_HASHED}
    asked = {k: v for k, v in dataclasses.asdict(arm).items() if k not in _SHOWN}
    text = json.dumps([told, asked, start, version], sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
