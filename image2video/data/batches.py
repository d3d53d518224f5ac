"""Batches of an image set: their sizes and order, and the worker processes that read them."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from image2video.data.seeds import derive_seed, seeded_generator
from image2video.errors import InputError, UnsupportedError

Stream = tuple[int, int]
"""(seed, epoch): all draws of an epoch come from these."""
Sample = tuple[Tensor, Tensor]


class Order(TypedDict, total=False):
    """The order of images in batches, and the device that batches are put on.

    Attributes:
        shuffle: draw a new order each epoch; without it images keep their order.
        seed: of the order, and of all that is drawn for images; 0 by default.
        device: where batches are put; the CPU by default.
        shard: `(rank, processes)` gives process `rank` its share of every batch; `(0, 1)` by default.

    """

    shuffle: bool
    seed: int
    device: torch.device | str
    shard: tuple[int, int]


class SeededBatches(ABC):
    """Batches in an order that depends on (seed, epoch) alone.

    All batches are of equal size to within one image, at most `batch_size`: a last batch of one image would break
    BatchNorm, and dropping it would hide images. With `shard=(rank, processes)` each process gets its share of each.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        device: torch.device | str = "cpu",
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        _check(batch_size, num_images, shard)
        self.num_images, self.batch_size, self.device = num_images, batch_size, torch.device(device)
        self._shuffle, self._seed, self._shard = shuffle, seed, shard

    def __len__(self) -> int:
        return -(-self.num_images // self.batch_size)

    @abstractmethod
    def epoch(self, epoch: int) -> Iterator[Sample]:
        """Read the batches of epoch `epoch`, as `Batches` says."""

    def _order(self, generator: torch.Generator) -> Tensor:
        """All images in the order of an epoch."""
        if self._shuffle:
            return torch.randperm(self.num_images, generator=generator)
        return torch.arange(self.num_images)

    def _slices(self) -> list[slice]:
        """Which part of that order each batch of this process takes."""
        return batch_slices(self.num_images, self.batch_size, self._shard)


class WorkerBatches(SeededBatches):
    """Batches that DataLoader workers read, with draws that do not depend on which worker reads an image.

    Args:
        num_images: how many images there are.
        batch_size: the most images of a batch.
        workers: processes that read them; 0 reads in this one.
        order: see `Order`.

    """

    def __init__(self, num_images: int, batch_size: int, *, workers: int, **order: Unpack[Order]) -> None:
        super().__init__(num_images, batch_size, **order)
        self._workers = workers

    @abstractmethod
    def _read(self, place: int, stream: Stream) -> Sample:
        """One image and its labels; all draws come from the stream and the image."""

    def _check_alike(self, images: Sequence[Tensor]) -> None:
        """Refuse the images of a batch that cannot be stacked."""

    def epoch(self, epoch: int) -> Iterator[Sample]:
        """The batches of epoch `epoch`: images `(B, C, H, W)` float32 and labels int64, on the device.

        Raises `InputError` that names the file where an image cannot be read.
        """
        stream = (self._seed, epoch)
        order = self._order(seeded_generator(*stream))
        loader = DataLoader(
            _Epoch(self, stream),
            batch_sampler=[order[places].tolist() for places in self._slices()],
            num_workers=self._workers,
            collate_fn=partial(_collate, self),
            worker_init_fn=partial(_seed_worker, stream=stream),
            pin_memory=self.device.type == "cuda",
            generator=seeded_generator(*stream),  # else the loader draws its base seed from the global generator
        )
        for batch in loader:
            if isinstance(batch, _Broken):
                raise batch.error
            images, labels = batch
            yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)


def batch_slices(num_images: int, batch_size: int, shard: tuple[int, int] = (0, 1)) -> list[slice]:
    """The places of each batch in the epoch's order: ⌈N / batch_size⌉ batches of equal size to within one image."""
    batches = -(-num_images // batch_size)
    edges = [i * num_images // batches for i in range(batches + 1)]
    rank, processes = shard
    return [slice(start + rank, stop, processes) for start, stop in pairwise(edges)]


def _check(batch_size: int, num_images: int, shard: tuple[int, int]) -> None:
    """Refuse a batch size below 1, an empty set and a shard that does not exist, as `InputError`."""
    rank, processes = shard
    if not 0 <= rank < processes:
        raise InputError(f"the rank must be in 0 … processes−1, got shard={shard}")
    if batch_size < processes:
        raise InputError(
            f"batch_size={batch_size} cannot be shared by {processes} processes; it must be at least {processes}"
        )
    if num_images < processes:
        raise InputError(f"every process needs an image: got {num_images} images for {processes}")


@dataclass(frozen=True)
class _Broken:
    """An error on its way from a worker; raised there, it would be buried under two tracebacks."""

    error: InputError | UnsupportedError


class _Epoch(Dataset):
    """The samples of one epoch."""

    def __init__(self, batches: WorkerBatches, stream: Stream) -> None:
        self._batches, self._stream = batches, stream

    def __len__(self) -> int:
        return self._batches.num_images

    def __getitem__(self, place: int) -> Sample | _Broken:
        try:
            return self._batches._read(place, self._stream)
        except (InputError, UnsupportedError) as error:
            return _Broken(error)


def _collate(batches: WorkerBatches, samples: list[Any]) -> Sample | _Broken:
    """Stack the samples of a batch; the first broken one counts for all."""
    for sample in samples:
        if isinstance(sample, _Broken):
            return sample
    images, labels = zip(*samples, strict=True)
    try:
        batches._check_alike(images)
    except InputError as error:
        return _Broken(error)
    return torch.stack(images), torch.stack(labels)


def _seed_worker(worker: int, stream: Stream) -> None:
    """Seed the global generators of a worker, for transforms that draw from another than torch's."""
    seed = derive_seed(*stream, worker)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
