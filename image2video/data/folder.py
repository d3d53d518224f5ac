"""Image files and other map-style data sets, read by DataLoader workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Unpack

import torch
from PIL import Image
from torch import Tensor

from image2video.data.augment import Augmentation
from image2video.data.batches import Order, Sample, Stream, WorkerBatches
from image2video.data.image_file import pixels, read_image
from image2video.data.seeds import derive_seed
from image2video.data.splits import DrawnSet
from image2video.data.transforms import TrainTransform
from image2video.errors import InputTypeError


@dataclass(frozen=True)
class Loading:
    """How samples are read: the two transforms (image as it is read → tensor) and the number of worker processes."""

    train: Callable[[Any], Tensor]
    eval: Callable[[Any], Tensor]
    workers: int = 0


@dataclass(frozen=True)
class ImageFiles:
    """A readable list of image files: `self[i]` is what `read_image` gives; what it refuses is named in the error."""

    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Image.Image | Tensor:
        return read_image(self.paths[index])


class LoadedBatches(WorkerBatches):
    """Batches read by worker processes; order and draws come from (seed, epoch) and the image's index alone.

    Args:
        images: anything with `self[i]` → PIL image, or a tensor `(3, H, W)` in 0 … 1.
        labels: `(N,)` int64.
        batch_size: the most images of a batch.
        loading: how images are read.
        augment: read them by the transform for training.
        order: `shuffle`, `seed`, `device` and `shard`, as `ImageSet.batches` takes them.

    """

    def __init__(
        self, images: Any, labels: Tensor, batch_size: int, *, loading: Loading, augment: bool, **order: Unpack[Order]
    ) -> None:
        super().__init__(len(labels), batch_size, workers=loading.workers, **order)
        self._images, self._labels = images, labels
        self._transform = loading.train if augment else loading.eval

    def _read(self, place: int, stream: Stream) -> Sample:
        image = self._images[place]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive_seed(*stream, place))
            return self._transform(image), self._labels[place]


@dataclass(frozen=True)
class _View:
    """Some of the images, by their places."""

    images: Any
    index: Tensor

    def __getitem__(self, place: int) -> Any:
        return self.images[int(self.index[place])]


class LoadedSet(DrawnSet):
    """Labelled images that are read when they are needed: an `ImageSet`.

    Args:
        images: anything with `self[i]` → PIL image, or a tensor `(3, H, W)` in 0 … 1, such as `ImageFiles`.
        labels: `(N,)` int64.
        loading: how images are read.
        index: which of the images belong to the set; all by default.

    """

    def __init__(self, images: Any, labels: Tensor, loading: Loading, index: Tensor | None = None) -> None:
        super().__init__(len(labels), index)
        self._images, self._labels, self._loading = images, labels, loading

    @property
    def labels(self) -> Tensor:
        """The labels `(N,)` int64, in the set's own order."""
        return self._labels[self._index]

    def raw(self, index: int) -> Tensor:
        """Look at an image in its own size, with 8 bits a channel.

        Args:
            index: its place in the set.

        Returns:
            The image, `(3, H, W)` uint8.

        """
        return pixels(self._images[int(self._index[index])])

    def with_loading(self, **changes: Any) -> LoadedSet:
        """Read the same images otherwise.

        Args:
            changes: fields of `Loading`, such as `workers`.

        Returns:
            The set that is read so.

        """
        return LoadedSet(self._images, self._labels, replace(self._loading, **changes), self._index)

    @property
    def policy(self) -> Augmentation | None:
        """What augments training images beside crops and flips; None too where the transform is the user's own."""
        return self._loading.train.policy if isinstance(self._loading.train, TrainTransform) else None

    def with_policy(self, policy: Augmentation | None) -> LoadedSet:
        """Augment the same images in training by another policy.

        Args:
            policy: the other policy; None for none.

        Returns:
            The set with it.

        Raises:
            InputTypeError: the training transform is the user's own.

        """
        train = self._loading.train
        if not isinstance(train, TrainTransform):
            raise InputTypeError(
                f"the training transform is {type(train).__name__}, a policy can be put into a TrainTransform only; "
                "write it into your own transform"
            )
        return self.with_loading(train=replace(train, policy=policy))

    def relabelled(self, numbers: Tensor) -> LoadedSet:
        """The same images with the label `numbers[label]` in place of each label.

        Args:
            numbers: `(classes,)` int64.

        Returns:
            The set with them.

        """
        return LoadedSet(self._images, numbers[self._labels], self._loading, self._index)

    def _subset(self, places: Tensor) -> LoadedSet:
        return LoadedSet(self._images, self._labels, self._loading, self._index[places])

    def batches(self, batch_size: int, *, augment: bool = False, **order: Unpack[Order]) -> LoadedBatches:
        """The images in batches.

        Args:
            batch_size: the most images of a batch.
            augment: read them by the transform for training.
            order: `shuffle`, `seed`, `device` and `shard`, as `ImageSet.batches` takes them.

        Returns:
            The batches.

        """
        images = _View(self._images, self._index)
        return LoadedBatches(images, self.labels, batch_size, loading=self._loading, augment=augment, **order)
