"""Held-out images cut into batches of one size, and shared out among processes batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from image2video.errors import InputError

Batch = tuple[Tensor, Tensor]


def even_batches(
    batches: Iterable[Batch], num_images: int, batch_size: int, shard: tuple[int, int] = (0, 1)
) -> Iterator[Batch]:
    """Cut a stream into ⌈n / batch_size⌉ batches of equal size to within one image, whatever its own batches are.

    Where a score depends on the batch, no small last batch may decide, and the batches must not depend on the number of
    processes: process r of P takes the batches r, r + P, … whole. All processes get equally many: in the last round
    the others get an empty one, so that they can wait for each other after every batch.

    Args:
        batches: `(images, labels)` of `num_images` images in all.
        num_images: n.
        batch_size: the most images of a batch.
        shard: (r, P).
    """
    rank, processes = shard
    count = number_of_batches(num_images, batch_size)
    sizes = [(i + 1) * num_images // count - i * num_images // count for i in range(count)]
    mine: Batch | None = None
    for number, batch in enumerate(_cut(batches, sizes)):
        if number % processes == rank:
            mine = batch
        if number % processes == processes - 1 or number == count - 1:
            yield mine if mine is not None else (batch[0][:0], batch[1][:0])
            mine = None


def number_of_batches(num_images: int, batch_size: int) -> int:
    """How many batches `even_batches` cuts."""
    return -(-num_images // batch_size)


def _cut(batches: Iterable[Batch], sizes: list[int]) -> Iterator[Batch]:
    """Batches of these sizes, one after the other; raises `InputError` where the stream is too short."""
    stream = iter(batches)
    rest: Batch | None = None
    for number, size in enumerate(sizes):
        parts = [] if rest is None else [rest]
        while sum(len(labels) for _, labels in parts) < size:
            batch = next(stream, None)
            if batch is None:
                found = sum(sizes[:number]) + sum(len(labels) for _, labels in parts)
                raise InputError(
                    f"the held-out images say num_images={sum(sizes)}, but their batches gave {found}; give every "
                    "image once per epoch"
                )
            parts.append(batch)
        images, labels = parts[0]
        if len(parts) > 1:
            images, labels = torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])
        yield images[:size], labels[:size]
        rest = (images[size:], labels[size:]) if len(labels) > size else None
