"""The small interfaces between the rooms: data, progress, and the way back from frames to images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Batches(Protocol):
    """Batches of one image set, in an order that depends on (seed, epoch) alone.

    `epoch(n)` yields `(images, labels)`: images `(B, C, H, W)` float, normalised, on the device; labels `(B,)` int64,
    or `(B, H, W)` for a class per pixel. Nothing is kept between epochs, so a killed run that is resumed at epoch n
    sees the same batches.
    """

    num_images: int

    def __len__(self) -> int:
        """Return the number of batches of one epoch."""
        ...

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of epoch `epoch` (an integer from 0)."""
        ...


@runtime_checkable
class ImageSet(Protocol):
    """Labelled images that can be split and read in batches."""

    num_images: int

    def split(self, fraction: float, *, seed: int) -> tuple[ImageSet, ImageSet]:
        """Draw two disjoint sets, stratified by class; the first has round(fraction · num_images) images."""
        ...

    def take(self, count: int, *, seed: int) -> ImageSet:
        """Draw `count` images, stratified by class."""
        ...

    def batches(
        self,
        batch_size: int,
        *,
        augment: bool = False,
        shuffle: bool = False,
        seed: int = 0,
        device: torch.device | str = "cpu",
        shard: tuple[int, int] = (0, 1),
    ) -> Batches:
        """Put the images into batches; `augment` applies the set's own crop and flip, `shuffle` reorders each epoch.

        `shard = (rank, processes)` gives process `rank` its share of every batch; all shares have the same order.
        """
        ...


class Progress(Protocol):
    """What long work calls to report its progress; `None` in its place means silence."""

    def __call__(self, stage: str, done: int, total: int, **figures: float) -> None:
        """Report `done` of `total` steps of a stage, with figures such as `loss=…`."""
        ...


def named(progress: Progress | None, name: str, *, stage_first: bool = False) -> Progress | None:
    """Report the steps of a part of the work under that part's name.

    Args:
        progress: what to call; None stays None.
        name: of the part; the stage `train` becomes `name: train`.
        stage_first: write `train: name` instead.

    Returns:
        What the part may call.

    >>> named(print, "search")("train", 3, 10)
    search: train 3 10
    """
    if progress is None:
        return None

    def report(stage: str, done: int, total: int, **figures: float) -> None:
        text = f"{stage}: {name}" if stage_first else f"{name}: {stage}"
        progress(text, done, total, **figures)

    return report


class Unwarper(Protocol):
    """What aggregation needs of `Image2Video`: the mean of maps over the frames in the reference image."""

    def unwarped_mean(self, maps: Tensor, image_size: tuple[int, int], T: int | None = None) -> Tensor:
        """Bring maps `(B·T, K, h, w)` back to the reference image and average them: `(B, K, h, w)`."""
        ...
