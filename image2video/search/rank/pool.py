"""Held-out images in one stream, whatever they come from."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from image2video.errors import InputError, InputTypeError
from image2video.protocols import ImageSet

_ITERABLE_IMAGES = 2000
_MOST_JUDGED = 0.9


def check_judge(judge: float) -> None:
    """Raise `InputError` unless `judge` is a share of the images that leaves some to choose with."""
    if not isinstance(judge, int | float) or not 0 <= judge <= _MOST_JUDGED:
        raise InputError(f"judge must be a share of the images, 0 … {_MOST_JUDGED}, got {judge!r}")


class HeldOut:
    """A stream of `(images, labels)` batches on a device, in an order drawn by `seed`.

    An `ImageSet` shuffles itself and is read as it goes. Of any other iterable the first `max_images` images are read
    into memory and shuffled there, with a warning where they are sorted by class and more would follow.

    Args:
        data: an `ImageSet`, or an iterable of batches whose first two items are images and labels.
        max_images: at most so many; None is all of an `ImageSet`, 2000 of an iterable.
        batch_size: images per batch.
        seed: of the order.
        device: where the batches go.
        class_labels: labels must be one class index per image; else one label of any shape per image.

    Raises:
        InputError: there is no image, or the labels do not fit.
        InputTypeError: `data` or its batches are something else.
    """

    def __init__(
        self,
        data: ImageSet | Iterable[Any],
        max_images: int | None,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        class_labels: bool = True,
    ) -> None:
        if max_images is not None and max_images < 1:
            raise InputError(f"max_images must be at least 1, got {max_images}")
        self.batch_size, self.seed, self.device = batch_size, seed, device
        self._set: ImageSet | None = None
        if isinstance(data, ImageSet):
            few = max_images is not None and max_images < data.num_images
            self._set = data.take(max_images, seed=seed) if few and max_images is not None else data
            self.num_images = self._set.num_images
        else:
            limit = _ITERABLE_IMAGES if max_images is None else max_images
            self._images, self._labels = _read(data, limit, class_labels)
            self.num_images = len(self._labels)
        if self.num_images == 0:
            raise InputError(f"a ranking needs held-out images, got {type(data).__name__} with none")

    def example(self) -> Tensor:
        """The first image of the stream, `(1, C, H, W)`."""
        return next(self.stream())[0][:1]

    def part(self, start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The images number `start` to `stop` of the stream, in its batches."""
        seen = 0
        for images, labels in self.stream():
            first, last = max(start - seen, 0), min(stop - seen, len(labels))
            if first < last:
                yield images[first:last], labels[first:last]
            seen += len(labels)
            if seen >= stop:
                return

    def stream(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All batches, once."""
        if self._set is not None:
            yield from self._set.batches(self.batch_size, shuffle=True, seed=self.seed, device=self.device).epoch(0)
            return
        order = torch.randperm(self.num_images, generator=torch.Generator().manual_seed(self.seed))
        for rows in order.split(self.batch_size):
            yield self._images[rows].to(self.device), self._labels[rows].to(self.device)


def _read(data: Iterable[Any], limit: int, class_labels: bool) -> tuple[Tensor, Tensor]:
    """The first `limit` images and labels of an iterable of batches, on the CPU."""
    epoch = getattr(data, "epoch", None)
    source = epoch(0) if callable(epoch) else data
    if not isinstance(source, Iterable):
        raise InputTypeError(f"held-out data must be an ImageSet or an iterable of batches, got {type(data).__name__}")
    images: list[Tensor] = []
    labels: list[Tensor] = []
    count, more = 0, False
    for batch in source:
        if not isinstance(batch, tuple | list) or len(batch) < 2 or not isinstance(batch[0], Tensor):
            raise InputTypeError(f"a batch must be (images, labels), got {type(batch).__name__}")
        if count >= limit:
            more = True
            break
        y = torch.as_tensor(batch[1])
        y = y.long() if class_labels or not y.is_floating_point() else y
        if y.ndim < 1 or len(y) != len(batch[0]) or (class_labels and y.ndim != 1):
            wanted = "one class index" if class_labels else "one label"
            raise InputError(f"labels must be {wanted} per image, got shape {tuple(y.shape)} for {len(batch[0])}")
        images.append(batch[0][: limit - count].cpu())
        labels.append(y[: limit - count].cpu())
        more = len(y) > limit - count
        count += len(labels[-1])
    if not images:
        raise InputError("a ranking needs held-out images: the iterable gave no batch")
    y = torch.cat(labels)
    if more and len(y) > 1 and class_labels and bool((y.diff() >= 0).all()):
        warnings.warn(
            f"the first {len(y)} images are sorted by class (0 … {int(y[-1])}) and more follow: the ranking would see "
            "a few classes only; shuffle the loader or raise max_images",
            stacklevel=4,
        )
    return torch.cat(images), y
