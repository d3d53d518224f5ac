"""The images of a mmsegmentation data set as a search reads them; (seed, epoch, image) decides every random draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor

from image2video.data.batches import Order, Sample, Stream, WorkerBatches
from image2video.data.seeds import derive_seed, seeded_generator
from image2video.data.splits import fraction_count
from image2video.functional import InputError
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

    def batches(self, batch_size: int, *, augment: bool = False, **order: Unpack[Order]) -> ConfigBatches:
        """The images in batches; with `augment` they go through the config's training pipeline."""
        reading = self._train if augment else self._held_out
        return ConfigBatches(reading, self._index, batch_size, workers=self._workers, **order)

    def _at(self, places: Tensor) -> ConfigImages:
        return ConfigImages(self._train, self._held_out, self._workers, self._index[places.sort().values])


class ConfigBatches(WorkerBatches):
    """Batches of `ConfigImages`: images `(B, C, H, W)` float32 and labels `(B, H, W)` int64.

    Args:
        reading: how an image is read.
        index: which items of the data set.
        batch_size: the most images of a batch.
        workers: processes that read them; 0 reads in this one.
        order: `shuffle`, `seed`, `device` and `shard`, as `ImageSet.batches` takes them.

    """

    def __init__(
        self, reading: Reading, index: Tensor, batch_size: int, *, workers: int, **order: Unpack[Order]
    ) -> None:
        super().__init__(len(index), batch_size, workers=workers, **order)
        self._reading, self._index = reading, index

    def _read(self, place: int, stream: Stream) -> Sample:
        item = int(self._index[place])
        return self._reading(item, derive_seed(*stream, item))

    def _check_alike(self, images: Sequence[Tensor]) -> None:
        sizes = sorted({f"{image.shape[2]}×{image.shape[1]}" for image in images})
        if len(sizes) > 1:
            raise InputError(
                f"images of different sizes in one batch ({', '.join(sizes)}); let train_pipeline end with a "
                "RandomCrop, and set model.data_preprocessor.size to its crop_size"
            )
