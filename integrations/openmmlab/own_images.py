"""The images of a config's own pipeline as an `ImageSet`: of any sizes, each at the size that the pipeline gives it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Unpack

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from image2video.data.batches import Order, Sample, SeededBatches
from image2video.data.seeds import derive_seed, seeded_generator
from image2video.data.splits import fraction_count
from image2video.functional import InputError
from image2video.integrations.openmmlab.search_reading import Reading


class OwnImages:
    """Images as a config's test pipeline makes them, an `ImageSet`: read when they are needed, never augmented.

    Args:
        reading: how an image is read, without padding to a size of its own.
        test_cfg: what the data preprocessor pads images to in tests (`size` or `size_divisor`); None for nothing.
        index: which items; all by default.
    """

    def __init__(
        self, reading: Reading, test_cfg: Mapping[str, Any] | None = None, index: Tensor | None = None
    ) -> None:
        self._reading, self._test_cfg = reading, test_cfg
        self.prepare = reading.prepare
        self.index = torch.arange(len(reading.items)) if index is None else index
        self.num_images = len(self.index)

    def split(self, fraction: float, *, seed: int) -> tuple[OwnImages, OwnImages]:
        """Two disjoint sets, the first of round(fraction · num_images) images, drawn by `seed`."""
        first = fraction_count(self.num_images, fraction)
        order = torch.randperm(self.num_images, generator=seeded_generator(seed))
        return self.at(self.index[order[:first]]), self.at(self.index[order[first:]])

    def take(self, count: int, *, seed: int) -> OwnImages:
        """`count` images, drawn by `seed`; raises `InputError` where there are fewer."""
        if not 0 < count <= self.num_images:
            raise InputError(f"cannot draw {count} images out of {self.num_images}; ask for 1 to {self.num_images}")
        return self.at(self.index[torch.randperm(self.num_images, generator=seeded_generator(seed))[:count]])

    def at(self, index: Tensor) -> OwnImages:
        """The items `index` of the data set."""
        return OwnImages(self._reading, self._test_cfg, index)

    def batches(self, batch_size: int, *, augment: bool = False, **order: Unpack[Order]) -> OwnBatches:
        """The images in batches of one size each; `augment` is refused, as `InputError`."""
        if augment:
            raise InputError("images of a test pipeline are not augmented; leave augment at False")
        return OwnBatches(self, batch_size, **order)

    def read(self, place: int, seed: int) -> Sample:
        """Image `(C, H, W)` and labels of one of the images; all draws of its pipeline by `seed`."""
        image, labels = self._reading(int(self.index[place]), seed)
        return self._padded(image, labels)

    def _padded(self, image: Tensor, labels: Tensor) -> Sample:
        """The image as the data preprocessor pads it in tests, and labels of the same size where it does."""
        asked = self._test_cfg or {}
        height, width = image.shape[1:]
        if asked.get("size") is not None:
            wanted = [int(n) for n in asked["size"]]
        elif asked.get("size_divisor") is not None:
            divisor = int(asked["size_divisor"])
            wanted = [-(-n // divisor) * divisor for n in (height, width)]
        else:
            return image, labels
        below, right = max(0, wanted[0] - height), max(0, wanted[1] - width)
        if not below and not right:
            return image, labels
        # Padding has no labels: they are brought to the image first, which then grows with them.
        fitted = interpolate(labels[None, None].double(), size=(height, width), mode="nearest")[0, 0].long()
        prepare = self.prepare
        edge = (0, right, 0, below)
        return pad(image, edge, value=prepare.pad_val), pad(fitted, edge, value=prepare.ignore_index)


class OwnBatches(SeededBatches):
    """Batches of `OwnImages`: as many images in a row as have one size, `(B, C, H, W)` and labels `(B, H, W)`.

    Args:
        images: what is read, in this process.
        batch_size: the most images of a batch.
        order: `shuffle`, `seed`, `device` and `shard`, as `ImageSet.batches` takes them.
    """

    def __init__(self, images: OwnImages, batch_size: int, **order: Unpack[Order]) -> None:
        super().__init__(images.num_images, batch_size, **order)
        self._images = images

    def epoch(self, epoch: int) -> Iterator[Sample]:
        """The batches of epoch `epoch`, on the device; raises `InputError` that names a file that cannot be read."""
        order = self._order(seeded_generator(self._seed, epoch))
        for places in self._slices():
            alike: list[Sample] = []
            for place in order[places].tolist():
                sample = self._images.read(place, derive_seed(self._seed, epoch, place))
                if alike and any(a.shape != b.shape for a, b in zip(alike[0], sample, strict=True)):
                    yield self._stacked(alike)
                    alike = []
                alike.append(sample)
            if alike:
                yield self._stacked(alike)

    def _stacked(self, samples: list[Sample]) -> Sample:
        images, labels = zip(*samples, strict=True)
        return torch.stack(images).to(self.device), torch.stack(labels).to(self.device)
