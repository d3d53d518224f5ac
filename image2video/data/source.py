"""What a data source is: training images, a held-out part of them, and a test set that no choice ever sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from image2video.data.absent import PARTS, AbsentSet
from image2video.data.augment import Augmentation
from image2video.data.folder import LoadedSet
from image2video.data.memory import MemorySet
from image2video.data.preparation import Preparation
from image2video.data.resizing import Resizing
from image2video.errors import InputError, InputTypeError
from image2video.protocols import ImageSet

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class DataSource:
    """A labelled data set, divided once.

    Attributes:
        name: the text it was loaded from.
        train: the training images.
        holdout: images that were taken from the training images; None where none were.
        test: the test set, which no choice ever sees.
        classes: their names in the order of the labels.
        input_size: (C, H, W).
        mean: per channel, in 0 … 1, as used to normalise.
        std: goes with `mean`.
        task: `classification` (one label per image) or `segmentation` (one per pixel).
        resizing: how files become squares; None for images in memory.

    """

    name: str
    train: ImageSet
    holdout: ImageSet | None
    test: ImageSet
    classes: tuple[str, ...]
    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    task: str = "classification"
    resizing: Resizing | None = None

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def policy(self) -> Augmentation | None:
        """What augments the training images beside crops and flips."""
        return self.train.policy if isinstance(self.train, MemorySet | LoadedSet) else None

    def with_policy(self, policy: Augmentation | None) -> DataSource:
        """Augment the training images by another policy.

        Args:
            policy: the other policy; None for none.

        Returns:
            The same data with it.

        Raises:
            InputTypeError: the training images are no set of this package.

        """
        if not isinstance(self.train, MemorySet | LoadedSet):
            raise InputTypeError(f"{type(self.train).__name__} takes no policy; augment the images in the set itself")
        return replace(self, train=self.train.with_policy(policy))

    @property
    def short_name(self) -> str:
        """The name without folders, for records that travel: `npz:cifar10.npz`, `torchvision:CIFAR10`."""
        return short_name(self.name)

    def describe(self) -> dict[str, object]:
        """Describe the data.

        Returns:
            Counts and sizes, ready for JSON.

        """
        counts = {
            "train_images": self.train,
            "holdout_images": self.holdout,
            "test_images": self.test,
        }
        found: dict[str, object] = {
            "name": self.name,
            # Of what was read.
            **{
                name: part.num_images if part else 0 for name, part in counts.items() if not isinstance(part, AbsentSet)
            },
            "classes": self.num_classes,
            "input_size": list(self.input_size),
            "mean": list(self.mean),
            "std": list(self.std),
        }
        if self.task != "classification":
            found["task"] = self.task
        if self.policy is not None:
            found["augment"] = str(self.policy)
        if self.resizing is not None and self.resizing != Resizing():
            found["resizing"] = self.resizing.to_dict()
        return found


def short_name(spec: str) -> str:
    """The text of a data set without folders."""
    scheme, _, rest = spec.partition(":")
    if scheme == "torchvision":
        rest = rest.partition("@")[0]
    return f"{scheme}:{Path(rest).name}" if rest else scheme


MEMORY_INTERPOLATIONS = ("nearest", "bilinear", "bicubic")
"""How images in memory can be resized."""


@dataclass(frozen=True)
class LoadOptions:
    """What a loader may be told; `None` means what `known` says, else its own default.

    Attributes:
        known: how the network's images are made ready.
        parts: which of `train` and `test` are read.
    """

    image_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: str | None = None
    crop_fraction: float | None = None
    crop_mode: str | None = None
    flip: bool | None = None
    augment: Augmentation | None = None
    workers: int | None = None
    known: Preparation | None = None
    parts: tuple[str, ...] = PARTS

    @property
    def memory_size(self) -> int | None:
        """Pixels per side of images in memory; None for their own."""
        if self.image_size is None and self.known is not None and self.known.binding:
            return self.known.image_size
        return self.image_size

    def colours(self, name: str, channels: int) -> tuple[float, ...] | None:
        """The `mean` or `std` of images of so many channels; None where nobody says it."""
        asked: tuple[float, ...] | None = getattr(self, name)
        said: tuple[float, ...] | None = None if self.known is None else getattr(self.known, name)
        return said if asked is None and said is not None and len(said) == channels else asked

    def knows_colours(self, channels: int) -> bool:
        """Whether mean and std of images of so many channels need not be measured."""
        return None not in (self.colours("mean", channels), self.colours("std", channels))

    @property
    def memory_interpolation(self) -> str:
        """How images in memory are resized, where they are."""
        known = self.known.resize if self.known is not None and self.known.binding else None
        if self.resize is None:
            return known if known in MEMORY_INTERPOLATIONS else "bilinear"
        if self.resize not in MEMORY_INTERPOLATIONS:
            raise InputError(
                f"resize={self.resize!r} is for image files; images in memory take {', '.join(MEMORY_INTERPOLATIONS)}"
            )
        return self.resize

    def check_memory(self) -> None:
        """Refuse, as `InputError`, what has no effect on images in memory."""
        given = [name for name in ("crop_fraction", "crop_mode") if getattr(self, name) is not None]
        if self.resize is not None and self.memory_size is None:
            given.append("resize")
        if given:
            raise InputError(
                f"{' and '.join(given)}: no effect on images in memory, which are resized whole, and only where "
                "image_size says so; leave it out"
            )

    def file_size(self, default: int) -> int:
        """Pixels per side of image files."""
        return int(self._said("image_size", default))

    def resizing(self) -> Resizing:
        """How image files become squares."""
        own = Resizing()
        return Resizing(
            self._said("resize", own.interpolation),
            self._said("crop_fraction", own.crop_fraction),
            self._said("crop_mode", own.crop_mode),
        )

    def _said(self, name: str, default: Any) -> Any:
        """What is asked for, else what is known, else the default."""
        value = getattr(self, name)
        if value is None and self.known is not None:
            value = getattr(self.known, name)
        return default if value is None else value


@dataclass(frozen=True)
class Pool:
    """What a loader returns: all training images and the test set, not yet divided; None for a part not asked for."""

    train: MemorySet | LoadedSet | None
    test: MemorySet | LoadedSet | None
    classes: tuple[str, ...]
    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    task: str = "classification"
    resizing: Resizing | None = None

    def with_classes(self, classes: Sequence[str] | int, name: str) -> Pool:
        """The same images with labels that count in `classes`; a number is for data whose classes have no names.

        Raises `InputError` where a class of the data is not among them.
        """
        if isinstance(classes, int):
            own = tuple(str(label) for label in range(len(self.classes)))
            if self.classes != own or classes < len(own):
                raise InputError(
                    f"classes={classes} does not fit {name}, whose {len(self.classes)} classes are "
                    f"{some(self.classes)}; give their names in the order of the network's outputs"
                )
            return replace(self, classes=tuple(str(label) for label in range(classes)))
        classes = tuple(classes)
        if len(set(classes)) < len(classes):
            raise InputError(f"classes must be different names, got one of {len(classes)} twice")
        if unknown := set(self.classes) - set(classes):
            raise InputError(
                f"{name} has classes that are not among the {len(classes)} given ones: {some(unknown)}; given are "
                f"{some(classes)}"
            )
        if classes == self.classes:
            return self
        numbers = torch.tensor([classes.index(name) for name in self.classes])
        train, test = (None if part is None else part.relabelled(numbers) for part in (self.train, self.test))
        return replace(self, train=train, test=test, classes=classes)

    def divide(self, name: str, *, train_images: int | None, holdout: float, seed: int) -> DataSource:
        """Draws `train_images` (by class where every image has one), then sets the share `holdout` of them aside."""
        train: ImageSet = AbsentSet("train", name) if self.train is None else self.train
        test: ImageSet = AbsentSet("test", name) if self.test is None else self.test
        held_out: ImageSet | None = None
        if self.train is not None:
            if train_images is not None:
                least = len(self.train.labels.unique()) if self.task == "classification" else 1
                if not least <= train_images <= train.num_images:
                    raise InputError(
                        f"train_images={train_images} is not possible: {name!r} has {train.num_images} training images "
                        f"in {len(self.classes)} classes; ask for {least} to {train.num_images}"
                    )
                train = train.take(train_images, seed=seed)
            if holdout:
                held_out, train = train.split(holdout, seed=seed)
        size, mean, std = self.input_size, self.mean, self.std
        return DataSource(name, train, held_out, test, self.classes, size, mean, std, self.task, self.resizing)


def some(names: Sequence[str] | set[str]) -> str:
    """The first five of these names, those of a set in sorted order; `none` where there are none."""
    if not names:
        return "none"
    listed = ", ".join((sorted(names) if isinstance(names, set) else list(names))[:5])
    return f"{listed} … ({len(names)} in all)" if len(names) > 5 else listed
