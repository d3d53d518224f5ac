"""What a data source is: training images, a held-out part of them, and a test set that no choice ever sees."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from image2video.data.augment import Augmentation
from image2video.data.folder import LoadedSet
from image2video.data.memory import MemorySet
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
        scheme, _, rest = self.name.partition(":")
        if scheme == "torchvision":
            rest = rest.partition("@")[0]
        return f"{scheme}:{Path(rest).name}" if rest else scheme

    def describe(self) -> dict[str, object]:
        """Describe the data.

        Returns:
            Counts and sizes, ready for JSON.

        """
        found: dict[str, object] = {
            "name": self.name,
            "train_images": self.train.num_images,
            "holdout_images": self.holdout.num_images if self.holdout else 0,
            "test_images": self.test.num_images,
            "classes": self.num_classes,
            "input_size": list(self.input_size),
            "mean": list(self.mean),
            "std": list(self.std),
        }
        if self.task != "classification":
            found["task"] = self.task
        if self.policy is not None:
            found["augment"] = str(self.policy)
        return found


@dataclass(frozen=True)
class LoadOptions:
    """What a loader may be told; `None` means its own default."""

    image_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    flip: bool | None = None
    augment: Augmentation | None = None
    workers: int | None = None


@dataclass(frozen=True)
class Pool:
    """What a loader returns: all training images and the test set, not yet divided."""

    train: MemorySet | LoadedSet
    test: MemorySet | LoadedSet
    classes: tuple[str, ...]
    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    task: str = "classification"

    def divide(self, name: str, *, train_images: int | None, holdout: float, seed: int) -> DataSource:
        """Draws `train_images` (by class where every image has one), then sets the share `holdout` of them aside."""
        train: ImageSet = self.train
        if train_images is not None:
            least = len(self.classes) if self.task == "classification" else 1
            if not least <= train_images <= train.num_images:
                raise InputError(
                    f"train_images={train_images} is not possible: {name!r} has {train.num_images} training images "
                    f"in {len(self.classes)} classes; ask for {least} to {train.num_images}"
                )
            train = train.take(train_images, seed=seed)
        held_out: ImageSet | None = None
        if holdout:
            held_out, train = train.split(holdout, seed=seed)
        size, mean, std = self.input_size, self.mean, self.std
        return DataSource(name, train, held_out, self.test, self.classes, size, mean, std, self.task)
