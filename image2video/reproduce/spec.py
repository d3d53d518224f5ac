"""What a table or figure of the paper is made of, as plain data: rows (data and network), arms, seeds, scales."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from image2video.errors import InputError
from image2video.experiments import Arm
from image2video.experiments.settings import warmup_epochs
from image2video.report import Contrast
from image2video.search import SearchConfig, get_space
from image2video.training import TrainConfig

SCALES = ("smoke", "cpu", "converged", "gpu", "paper")


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
        epochs: of a network from scratch. With 0 nothing is trained: the network is what `weights` published, its
            classifier included, and the labelled images are those of the data's test part, which `holdout` divides.
        finetune_epochs: of one that starts from trained weights.
        batch_size: images per step.
        lr: peak learning rate from scratch.
        finetune_lr: peak learning rate from trained weights.
        recipe: further fields of `TrainConfig`.
        seeds: how many, from `seed` on.
        more_seeds: arm -> how many, for arms that have more than the others.
        seed: the first; it also divides the data and seeds searches, which all seeds of a row share.
        space: search space, of the search and of random genotypes.
        search: further fields of `SearchConfig`; `epochs`, `tune_epochs` and `lr` are 6, 1 and `lr` without it.
        augment_minutes: what the search of an augmentation policy may take.
        hours: what the row is expected to take on `machine`, for scales that nobody runs by accident.
        machine: the machine of that estimate.
        config: a plain mmsegmentation config below `image2video.integrations.openmmlab.configs`, for rows of
            segmentation; it says the network, the recipe and the steps, in place of `model`, `batch_size` and `recipe`.
        options: `--cfg-options` of that config.
        steps: of an arm from scratch, in place of the config's; its schedule is stretched to them.
        elsewhere: data set -> the fields that differ from this setting's, such as the network, where an arm's genotype
            is `searched@` that data set.
        device: auto, cpu, cuda or mps.
        weights: the trained weights with which the bare network begins, a name of `pretrained.PRETRAINED`; None for
            random ones. Its classifier begins at zero, unless nothing is trained, and images are normalised as the
            weights want it.
        padding: what lies outside the image in clips; None for `zeros`.
        rank_space: the space that rankings for trained weights draw from; None for `gentle`.
        redraw: every seed draws its own training images and divides them, in place of all seeds having those of the
            first; the intervals then hold the spread between sets of training images.
        measures: also record what `measures.measured` gives: calibration, stability under shifts, and which test images
            are right; needs held-out images.

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
    more_seeds: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    space: str = "affine5"
    search: Mapping[str, Any] = field(default_factory=dict)
    augment_minutes: float = 5.0
    hours: float | None = None
    machine: str | None = None
    config: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    steps: int | None = None
    elsewhere: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    weights: str | None = None
    padding: str | None = None
    rank_space: str | None = None
    redraw: bool = False
    measures: bool = False

    @property
    def network(self) -> str:
        """The network by the name that records and tables give it."""
        return self.config or self.model

    @property
    def clip_schedule(self) -> str:
        """The power of each frame."""
        return self.schedule or get_space(self.space).schedule

    @property
    def trains(self) -> bool:
        """Whether anything is trained."""
        return self.epochs > 0

    def divided_by(self, seed: int) -> Setting:
        """The setting with the division of the data that a seed has.

        Args:
            seed: of the run.

        Returns:
            This setting, its `seed` replaced where every seed draws its own images.
        """
        return dataclasses.replace(self, seed=seed) if self.redraw else self

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        """The seeds of an arm.

        Args:
            arm: its name.

        Returns:
            The seeds, in order.
        """
        return tuple(range(self.seed, self.seed + max(self.seeds, self.more_seeds.get(arm, 0))))

    def training(self, epochs: int, seed: int, *, finetune: bool) -> TrainConfig:
        """The recipe of one run.

        Args:
            epochs: of the run.
            seed: of the run.
            finetune: whether it starts from trained weights.

        Returns:
            The settings of its training.
        """
        values = {"warmup_epochs": warmup_epochs(epochs, finetune=finetune), **self.recipe}
        lr = self.finetune_lr if finetune else self.lr
        return TrainConfig(epochs=epochs, batch_size=self.batch_size, lr=lr, seed=seed, device=self.device, **values)

    @property
    def search_options(self) -> dict[str, Any]:
        """What `search` says, over what holds without it."""
        return {"epochs": 6, "tune_epochs": 1, "lr": self.lr, **self.search}

    def searching(self) -> SearchConfig:
        """The settings of the one search of a row, which goes as the paper's does (`paper=True`).

        Returns:
            What `search` takes.
        """
        options = {"batch_size": self.batch_size, **self.search_options}
        return SearchConfig(space=self.space, paper=True, T=self.T, seed=self.seed, **options)


@dataclass(frozen=True)
class Cell(Arm):
    """An arm of a table, with what only a reproduction varies.

    Attributes:
        layout: `right`, or `scrambled` as in the authors' code (see `scramble.py`).
        variant: of the network: `dilated` or `kernel5` (Table 4), None for the network itself.
        augment: a policy for the training images, or `search:FAMILY` for one that is searched for (Table 7).
        learned: the ranges of motion are learned with the weights, and no held-out image is looked at (Augerino). The
            arm trains on the same images as the others.
        scales: the scales at which it runs.
        sites: where its fusion acts: what `VideoWrap(sites=…)` takes as a text, such as `published`.
        clip_at: the module at whose input its clip begins, as in `VideoWrap`; None for the image.
        ranked_for: the arm for whose last weights of the same seed a `fixed_weights` clip is ranked, where this arm
            does not start from them.
        pose: a genotype that moves all test and held-out images before anything sees them, or a frame set, whose frames
            take turns from image to image; training images stay.

    Raises:
        InputError: as in `Arm`; a `ranked_for` beside `start` or another genotype.
    """

    layout: str = "right"
    variant: str | None = None
    augment: str | None = None
    learned: bool = False
    scales: tuple[str, ...] = SCALES
    sites: str | None = None
    clip_at: str | None = None
    ranked_for: str | None = None
    pose: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ranked_for is not None and (self.start is not None or self.genotype != "fixed_weights"):
            raise InputError(
                f"arm {self.name!r} got ranked_for={self.ranked_for!r}; it goes with genotype='fixed_weights' and "
                f"without start, got genotype={self.genotype!r:.200} and start={self.start!r}"
            )

    @property
    def needed(self) -> str | None:
        """The arm whose weights it needs, to start from or to rank a clip for."""
        return self.start or self.ranked_for

    def frames(self, setting: Setting) -> int:
        """T of this arm.

        Args:
            setting: of the row.

        Returns:
            The arm's own T, or the row's.
        """
        return setting.T if self.T is None else self.T

    def total_epochs(self, setting: Setting) -> int:
        """All epochs of this arm.

        Args:
            setting: of the row.

        Returns:
            The epochs; 0 where the arm is not trained.
        """
        return self.epochs(setting.epochs, setting.finetune_epochs, self.frames(setting))


@dataclass(frozen=True)
class Row:
    """One line of a table: a data set with a network.

    Attributes:
        name: in words.
        metric: what the scores are.
        paper: arm -> the score that the paper reports.
        settings: scale -> what its runs share.
        without: arms of the table that this row does not have.
    """

    name: str
    metric: str
    paper: Mapping[str, float]
    settings: Mapping[str, Setting]
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class UnionCase:
    """What `figure: unions` draws in a line: one field in every frame of a clip, mapped back to the image.

    Attributes:
        name: in words.
        genotype: what moves the frames.
        field: (left, top, right, bottom) in pixels of the image, y down.
        paper: the area in square pixels that the paper states.
        note: what must be said beside.
        T: frames.
        schedule: the power of each frame.
        image_size: (height, width) of the image.

    """

    name: str
    genotype: str
    field: tuple[float, ...]
    paper: float | None = None
    note: str = ""
    T: int = 3
    schedule: str = "from_zero"
    image_size: tuple[int, ...] = (20, 20)


@dataclass(frozen=True)
class Experiment:
    """A table or figure: every row with every arm, and the questions that it answers.

    Attributes:
        name: of its file.
        title: in words.
        source: where the paper has it.
        rows: data sets with networks.
        arms: those that start from another come after it.
        contrasts: the questions.
        notes: what must be said beside it.
        figure: what is drawn beside the scores, one of `parse.FIGURES`.
        images: test images that the figure is drawn from.
        unions: what `figure: unions` draws, which has no rows.
    """

    name: str
    title: str
    source: str
    rows: tuple[Row, ...]
    arms: tuple[Cell, ...]
    contrasts: tuple[Contrast, ...]
    notes: str = ""
    figure: str | None = None
    images: int = 16
    unions: tuple[UnionCase, ...] = ()

    @property
    def draws_networks(self) -> bool:
        """Whether the figure is drawn with trained networks: the weights of every arm's first seed."""
        return self.figure in ("fields", "predictions")

    def arms_at(self, scale: str, row: Row) -> tuple[Cell, ...]:
        """The arms of a row that run at a scale.

        Args:
            scale: one of `SCALES`.
            row: the row.

        Returns:
            The arms, in the table's order.
        """
        return tuple(arm for arm in self.arms if scale in arm.scales and arm.name not in row.without)
