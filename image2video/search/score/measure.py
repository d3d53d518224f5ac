"""Scoring several variants of a network on the same held-out images, over all processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import zip_longest
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from image2video.errors import InputError
from image2video.search.score.scores import Scores
from image2video.search.score.task import ClassificationTask, Task

Values = tuple[Tensor, Tensor]
"""Quality and loss of every variant on the images of a batch, `(V, B, …)` and `(V, B)`."""


def score_variants(
    variants: Callable[[Tensor], Iterable[Any]],
    batches: Iterable[tuple[Tensor, Tensor]],
    accelerator: Accelerator | None = None,
    *,
    task: Task | None = None,
    on_batch: Callable[[int], None] | None = None,
    stop: Callable[[Scores], bool] | None = None,
) -> Scores:
    """Score what `variants(images)` returns, predictions `(B, …)` per variant, over all batches of all processes.

    Predictions that come one by one, as from a generator, are never held together.

    `task` says what predictions are (default: classification). `on_batch` is called with the number of images of every
    batch. `stop` is asked after every batch, with the scores of all processes so far, whether they suffice; it must
    answer alike on all processes. Raises `InputError` where there is no image, no label, or a loss that is NaN or
    infinite.
    """
    task = task or ClassificationTask()
    total: Scores | None = None
    fresh: list[Values] = []
    for images, labels in batches:
        if len(labels) > 0:  # else a process's share of a small last batch
            scored = [task.per_image(predictions, labels) for predictions in variants(images)]
            fresh.append((torch.stack([q for q, _ in scored]), torch.stack([x for _, x in scored])))
            if on_batch is not None:
                on_batch(len(labels))
        if stop is not None:
            total, fresh = _added(total, _of_all(fresh, accelerator), task), []
            if total is not None and stop(total):
                break
    scores = _added(total, _of_all(fresh, accelerator), task)
    if scores is None or scores.n == 0:
        raise InputError("there are no held-out images to score on; give more images or a larger validation share")
    losses = [scores.mean_loss(v) for v in range(scores.variants)]
    bad = [v for v, loss in enumerate(losses) if not abs(loss) < float("inf")]
    if bad:
        raise InputError(
            f"the held-out loss of variant {bad[0]} of {len(losses)} is {losses[bad[0]]}: "
            "the network gives NaN or infinite logits; lower the learning rate or check the weights"
        )
    unknown = [v for v in range(scores.variants) if math.isnan(scores.accuracy(v))]
    if unknown:
        raise InputError(
            f"the held-out {task.metric} of variant {unknown[0]} of {scores.variants} is not known on {scores.n} "
            "images: nothing in them is labelled; give images that have labels"
        )
    return scores


def _added(total: Scores | None, fresh: list[Values], task: Task) -> Scores | None:
    """Add the scores of further batches to `total`."""
    if not fresh:
        return total
    added = task.collect(torch.cat([q for q, _ in fresh], 1), torch.cat([x for _, x in fresh], 1))
    return added if total is None else total + added


def _of_all(fresh: list[Values], accelerator: Accelerator | None) -> list[Values]:
    """The values of all processes' batches, in one order on each: first batches, second batches, …

    They have stayed on the device so far. Where processes take whole batches in turn, this is the order in which one
    process alone would have them, so that sums are equal to the bit.
    """
    if accelerator is None or accelerator.num_processes == 1:
        return fresh
    shares = gather_object([[(quality.cpu(), loss.cpu()) for quality, loss in fresh]])
    return [values for batch in zip_longest(*shares) for values in batch if values is not None]
