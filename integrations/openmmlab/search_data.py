"""The images of a mmsegmentation data set as a search reads them; (seed, epoch, image) decides every random draw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from image2video.data.memory import batch_slices, check_batches
from image2video.data.seeds import derive_seed, seeded_generator
from image2video.data.splits import fraction_count
from image2video.functional import InputError, UnsupportedError
from image2video.integrations.openmmlab.search_reading import Reading


class ConfigImages:
    """The images of a config's data set, an `ImageSet`: read when they are needed.

    Args:
        train: how they are read where a batch is augmented.
        held_out: how they are read elsewhere: with no random draw, all of one size.
        workers: processes that read them; 0 reads in this one.
        index: which items; all by default.

    """

    def __init__(self, train: Reading, held_out: Reading, workers: int = 0, index: Tensor | None = None) -> None:
        self._train, self._held_out, self._workers = train, held_out, workers
        self._index = torch.arange(len(train.items)) if index is None else index
        self.num_images = len(self._index)

    def split(self, fraction: float, *, seed: int) -> tuple[ConfigImages, ConfigImages]:
        """Two disjoint sets, the first of round(fraction · num_images) images, drawn by `seed`."""
        first = fraction_count(self.num_images, fraction)
        order = torch.randperm(self.num_images, generator=seeded_generator(seed))
        return self._at(order[:first]), self._at(order[first:])

    def take(self, count: int, *, seed: int) -> ConfigImages:
        """`count` images, drawn by `seed`; raises `InputError` where there are fewer."""
        if not 0 < count <= self.num_images:
            raise InputError(f"cannot draw {count} images out of {self.num_images}; ask for 1 to {self.num_images}")
        return self._at(torch.randperm(self.num_images, generator=seeded_generator(seed))[:count])

    def batches(
        self,
        batch_size: int,
        *,
        augment: bool = False,
        shuffle: bool = False,
        seed: int = 0,
        device: torch.device | str = "cpu",
        shard: tuple[int, int] = (0, 1),
    ) -> ConfigBatches:
        """The images in batches on `device`; with `augment` they go through the config's training pipeline."""
        check_batches(batch_size, self.num_images, shard)
        reading = self._train if augment else self._held_out
        return ConfigBatches(
            reading, self._index, batch_size, shuffle, seed, torch.device(device), shard, self._workers
        )

    def _at(self, places: Tensor) -> ConfigImages:
        return ConfigImages(self._train, self._held_out, self._workers, self._index[places.sort().values])


@dataclass(frozen=True)
class ConfigBatches:
    """Batches of `ConfigImages`: order and draws come from (seed, epoch) and the image alone, not from the worker."""

    reading: Reading
    index: Tensor
    batch_size: int
    shuffle: bool
    seed: int
    device: torch.device
    shard: tuple[int, int]
    workers: int

    @property
    def num_images(self) -> int:
        """How many images there are."""
        return len(self.index)

    def __len__(self) -> int:
        return -(-self.num_images // self.batch_size)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of epoch `epoch`: images `(B, C, H, W)` float32 and labels `(B, H, W)` int64, on the device.

        Raises `InputError` that names the file where an image cannot be read, and for images of different sizes.
        """
        stream, count = (self.seed, epoch), self.num_images
        order = torch.randperm(count, generator=seeded_generator(*stream)) if self.shuffle else torch.arange(count)
        loader = DataLoader(
            _Epoch(self.reading, self.index, stream),
            batch_sampler=[order[places].tolist() for places in batch_slices(count, self.batch_size, self.shard)],
            num_workers=self.workers,
            collate_fn=_collate,
            pin_memory=self.device.type == "cuda",
            generator=seeded_generator(*stream),  # else the loader draws its base seed from the global generator
        )
        for batch in loader:
            if isinstance(batch, _Broken):
                raise batch.error
            images, labels = batch
            yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)


@dataclass(frozen=True)
class _Broken:
    """An item that could not be read; the error is raised outside of the worker."""

    error: InputError | UnsupportedError


class _Epoch(Dataset):
    """The items of one epoch."""

    def __init__(self, reading: Reading, index: Tensor, stream: tuple[int, int]) -> None:
        self._reading, self._index, self._stream = reading, index, stream

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor] | _Broken:
        item = int(self._index[place])
        try:
            return self._reading(item, derive_seed(*self._stream, item))
        except (InputError, UnsupportedError) as error:  # a raise inside a worker would bury it under two tracebacks
            return _Broken(error)


def _collate(samples: list[tuple[Tensor, Tensor] | _Broken]) -> tuple[Tensor, Tensor] | _Broken:
    """Stack images and labels; the first broken item stands for the batch."""
    images, labels = [], []
    for sample in samples:
        if isinstance(sample, _Broken):
            return sample
        images.append(sample[0])
        labels.append(sample[1])
    sizes = sorted({f"{image.shape[2]}×{image.shape[1]}" for image in images})
    if len(sizes) > 1:
        return _Broken(
            InputError(
                f"images of different sizes in one batch ({', '.join(sizes)}); let train_pipeline end with a "
                "RandomCrop, and set model.data_preprocessor.size to its crop_size"
            )
        )
    return torch.stack(images), torch.stack(labels)
