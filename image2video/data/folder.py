"""Image files and other map-style data sets, read by DataLoader workers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from image2video.data.augment import Augmentation
from image2video.data.memory import batch_slices, check_batches
from image2video.data.seeds import derive_seed, seeded_generator
from image2video.data.splits import fraction_count, stratified_split
from image2video.data.transforms import TrainTransform
from image2video.errors import InputError, InputTypeError

_BROKEN = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for a file that it cannot read."""


@dataclass(frozen=True)
class Loading:
    """How samples are read: the two transforms (PIL image → tensor) and the number of worker processes."""

    train: Callable[[Any], Tensor]
    eval: Callable[[Any], Tensor]
    workers: int = 0


@dataclass(frozen=True)
class ImageFiles:
    """A readable list of image files: `self[i]` is a PIL image; a file that cannot be read is named in the error."""

    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Image.Image:
        path = self.paths[index]
        try:
            with Image.open(path) as image:
                image.load()
                return image
        except _BROKEN as error:
            raise InputError(f"cannot read the image {path}: {error}; replace or delete it") from error


@dataclass(frozen=True)
class _Broken:
    message: str


class _EpochSamples(Dataset):
    """The samples of one epoch; the draws of each depend on (seed, epoch, index) alone, not on the worker."""

    def __init__(
        self, images: Any, labels: Tensor, transform: Callable[[Any], Tensor], stream: tuple[int, int]
    ) -> None:
        self._images, self._labels, self._transform, self._stream = images, labels, transform, stream

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor] | _Broken:
        try:
            image = self._images[index]
        except InputError as error:  # a raise inside a worker would bury the file's name under two tracebacks
            return _Broken(str(error))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive_seed(*self._stream, index))
            return self._transform(image), self._labels[index]


def _collate(samples: list[tuple[Tensor, Tensor] | _Broken]) -> tuple[Tensor, Tensor] | _Broken:
    for sample in samples:
        if isinstance(sample, _Broken):
            return sample
    images, labels = zip(*samples, strict=True)
    return torch.stack(images), torch.stack(labels)


def _seed_worker(worker: int, stream: tuple[int, int]) -> None:
    seed = derive_seed(*stream, worker)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


class LoadedBatches:
    """Batches read by `workers` processes; order and draws come from (seed, epoch) and the image's index alone."""

    def __init__(
        self,
        images: Any,
        labels: Tensor,
        batch_size: int,
        *,
        loading: Loading,
        augment: bool,
        shuffle: bool,
        seed: int,
        device: torch.device | str,
        shard: tuple[int, int],
    ) -> None:
        check_batches(batch_size, len(labels), shard)
        self.num_images = len(labels)
        self.batch_size = batch_size
        self.device = torch.device(device)
        self._images, self._labels, self._loading = images, labels, loading
        self._augment, self._shuffle, self._seed, self._shard = augment, shuffle, seed, shard

    def __len__(self) -> int:
        return -(-self.num_images // self.batch_size)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of epoch `epoch`: images `(B, C, H, W)` float32 and labels `(B,)` int64, on the device.

        Raises `InputError` that names the file where an image cannot be read.
        """
        stream = (self._seed, epoch)
        count = self.num_images
        order = torch.randperm(count, generator=seeded_generator(*stream)) if self._shuffle else torch.arange(count)
        batches = [order[places].tolist() for places in batch_slices(count, self.batch_size, self._shard)]
        transform = self._loading.train if self._augment else self._loading.eval
        loader = DataLoader(
            _EpochSamples(self._images, self._labels, transform, stream),
            batch_sampler=batches,
            num_workers=self._loading.workers,
            collate_fn=_collate,
            worker_init_fn=partial(_seed_worker, stream=stream),
            pin_memory=self.device.type == "cuda",
            generator=seeded_generator(*stream),  # else the loader draws its base seed from the global generator
        )
        for batch in loader:
            if isinstance(batch, _Broken):
                raise InputError(batch.message)
            images, labels = batch
            yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)


@dataclass(frozen=True)
class _View:
    images: Any
    index: Tensor

    def __getitem__(self, place: int) -> Any:
        return self.images[int(self.index[place])]


class LoadedSet:
    """Labelled images read when they are needed: an `ImageSet` over anything with `self[i]` → PIL image.

    images: for example `ImageFiles`; labels: `(N,)` int64.
    """

    def __init__(self, images: Any, labels: Tensor, loading: Loading, index: Tensor | None = None) -> None:
        self._images, self._labels, self._loading = images, labels, loading
        self._index = torch.arange(len(labels)) if index is None else index
        self.num_images = len(self._index)

    @property
    def labels(self) -> Tensor:
        """The labels `(N,)` int64, in the set's own order."""
        return self._labels[self._index]

    def raw(self, index: int) -> Tensor:
        """Image `index` of the set, `(3, H, W)` uint8, in its own size."""
        array = np.array(self._images[int(self._index[index])].convert("RGB"))
        return torch.from_numpy(array).permute(2, 0, 1)

    def with_loading(self, **changes: Any) -> LoadedSet:
        """The same images with other transforms or another number of workers."""
        return LoadedSet(self._images, self._labels, replace(self._loading, **changes), self._index)

    @property
    def policy(self) -> Augmentation | None:
        """What augments training images beside crops and flips; None too where the transform is the user's own."""
        return self._loading.train.policy if isinstance(self._loading.train, TrainTransform) else None

    def with_policy(self, policy: Augmentation | None) -> LoadedSet:
        """The same images, augmented in training by another policy.

        Raises `InputTypeError` where the training transform is the user's own.
        """
        train = self._loading.train
        if not isinstance(train, TrainTransform):
            raise InputTypeError(
                f"the training transform is {type(train).__name__}, a policy can be put into a TrainTransform only; "
                "write it into your own transform"
            )
        return self.with_loading(train=replace(train, policy=policy))

    def _subset(self, places: Tensor) -> LoadedSet:
        return LoadedSet(self._images, self._labels, self._loading, self._index[places])

    def split(self, fraction: float, *, seed: int) -> tuple[LoadedSet, LoadedSet]:
        """Two disjoint sets, the first with round(fraction · num_images) images, stratified, drawn by `seed`."""
        first, second = stratified_split(self.labels, fraction_count(self.num_images, fraction), seed=seed)
        return self._subset(first), self._subset(second)

    def take(self, count: int, *, seed: int) -> LoadedSet:
        """`count` images, stratified by class, drawn by `seed`."""
        return self._subset(stratified_split(self.labels, count, seed=seed)[0])

    def batches(
        self,
        batch_size: int,
        *,
        augment: bool = False,
        shuffle: bool = False,
        seed: int = 0,
        device: torch.device | str = "cpu",
        shard: tuple[int, int] = (0, 1),
    ) -> LoadedBatches:
        """The images in batches on `device`; see `LoadedBatches`."""
        return LoadedBatches(
            _View(self._images, self._index),
            self.labels,
            batch_size,
            loading=self._loading,
            augment=augment,
            shuffle=shuffle,
            seed=seed,
            device=device,
            shard=shard,
        )
