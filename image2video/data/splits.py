"""Seeded draws that keep the share of every class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor

from image2video.data.seeds import seeded_generator
from image2video.errors import InputError


def class_quotas(counts: Tensor, total: int, generator: torch.Generator) -> Tensor:
    """How many images to draw of each class so that they sum to `total`: largest remainders, ties by `generator`.

    counts: `(K,)` int64, the images there are of each class. Returns `(K,)` int64, at most `counts`.
    """
    exact = counts.double() * total / counts.sum()
    quotas = exact.floor().long()
    missing = total - int(quotas.sum())
    remainders = exact - quotas
    tie_break = torch.randperm(len(counts), generator=generator)
    order = tie_break[torch.argsort(remainders[tie_break], descending=True, stable=True)]
    quotas[order[:missing]] += 1
    return quotas


def stratified_split(labels: Tensor, first: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Two disjoint sets of indices, the first of `first` images, with the classes' shares kept to within one image.

    labels: `(N,)` int64. Returns two sorted int64 tensors that together are 0 … N−1; either may be empty.
    Raises `InputError` where `first` is not in 0 … N.
    """
    _check_count(first, len(labels))
    generator = seeded_generator(seed)
    if len(labels) == 0:
        return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    order = torch.randperm(len(labels), generator=generator)
    quotas = class_quotas(torch.bincount(labels), first, generator)
    shuffled = labels[order]
    by_class = order[torch.argsort(shuffled, stable=True)]  # class after class, in random order within each
    counts = torch.bincount(labels)
    starts = torch.cumsum(counts, 0) - counts
    place = torch.arange(len(labels)) - torch.repeat_interleave(starts, counts)
    chosen = place < torch.repeat_interleave(quotas, counts)
    return by_class[chosen].sort().values, by_class[~chosen].sort().values


def drawn_split(labels: Tensor, first: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """As `stratified_split` where every image has one label `(N,)`; labels of pixels `(N, H, W)`: a plain draw."""
    if labels.ndim == 1:
        return stratified_split(labels, first, seed=seed)
    _check_count(first, len(labels))
    order = torch.randperm(len(labels), generator=seeded_generator(seed))
    return order[:first].sort().values, order[first:].sort().values


def _check_count(first: int, count: int) -> None:
    """Refuse to draw more images than there are."""
    if not 0 <= first <= count:
        raise InputError(f"cannot draw {first} images out of {count}; ask for 0 to {count}")


def fraction_count(count: int, fraction: float) -> int:
    """round(fraction · count), checked: both parts must hold an image.

    Raises `InputError` for a fraction outside 0 … 1 or one that leaves a part empty.
    """
    if not 0.0 < fraction < 1.0:
        raise InputError(f"a split needs a fraction between 0 and 1 (both excluded), got {fraction}")
    first = round(fraction * count)
    if not 0 < first < count:
        raise InputError(f"splitting {count} images at the fraction {fraction} leaves one part empty; use more images")
    return first


class DrawnSet(ABC):
    """Labelled images of which parts can be drawn.

    Args:
        count: how many images there are to choose from.
        index: which of them belong to the set; all by default.

    """

    def __init__(self, count: int, index: Tensor | None = None) -> None:
        self._index = torch.arange(count) if index is None else index
        self.num_images = len(self._index)

    @property
    @abstractmethod
    def labels(self) -> Tensor:
        """The labels `(N,)` or `(N, H, W)` int64, in the set's own order."""

    @abstractmethod
    def _subset(self, places: Tensor) -> Self:
        """The images at these places of the set, as a set."""

    def split(self, fraction: float, *, seed: int) -> tuple[Self, Self]:
        """Two disjoint sets, the first of round(fraction · num_images) images, drawn by `seed`.

        By class where every image has one label.
        """
        first, second = drawn_split(self.labels, fraction_count(self.num_images, fraction), seed=seed)
        return self._subset(first), self._subset(second)

    def take(self, count: int, *, seed: int) -> Self:
        """`count` images drawn by `seed`, by class where every image has one label."""
        return self._subset(drawn_split(self.labels, count, seed=seed)[0])
