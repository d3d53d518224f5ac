"""Scoring several variants of a network on the same held-out images, over all processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from image2video.errors import InputError
from image2video.search.score.scores import Scores
from image2video.search.score.task import ClassificationTask, Task


def score_variants(
    variants: Callable[[Tensor], list[Any]],
    batches: Iterable[tuple[Tensor, Tensor]],
    accelerator: Accelerator | None = None,
    *,
    task: Task | None = None,
    on_batch: Callable[[int], None] | None = None,
    stop: Callable[[Scores], bool] | None = None,
) -> Scores:
    """Score what `variants(images)` returns, predictions `(B, …)` per variant, over all batches of all processes.

    `task` says what predictions are (default: classification). `on_batch` is called with the number of images of every
    batch. `stop` is asked after every batch, with the scores of all processes so far, whether they suffice; it must
    answer alike on all processes. Raises `InputError` where there is no image, no label, or a loss that is NaN or
    infinite.
    """
    task = task or ClassificationTask()
    total: Scores | None = None
    fresh: list[tuple[Tensor, Tensor]] = []
    for images, labels in batches:
        if len(labels) > 0:  # else a process's share of a small last batch
            scored = [task.per_image(predictions, labels) for predictions in variants(images)]
            fresh.append((torch.stack([q for q, _ in scored]), torch.stack([x for _, x in scored])))
            if on_batch is not None:
                on_batch(len(labels))
        if stop is not None:
            total, fresh = _added(total, fresh, task), []
            so_far = _over_processes(total, accelerator)
            if so_far is not None and stop(so_far):
                break
    scores = _over_processes(_added(total, fresh, task), accelerator)
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


def _added(total: Scores | None, fresh: list[tuple[Tensor, Tensor]], task: Task) -> Scores | None:
    """Add the scores of further batches to `total`; their values have stayed on the device so far."""
    if not fresh:
        return total
    added = task.collect(torch.cat([q for q, _ in fresh], 1), torch.cat([x for _, x in fresh], 1))
    return added if total is None else total + added


def _over_processes(scores: Scores | None, accelerator: Accelerator | None) -> Scores | None:
    """The scores of all processes together, the same on each; None stands for an empty share."""
    if accelerator is None or accelerator.num_processes == 1:
        return scores
    total: Scores | None = None
    for part in gather_object([scores]):  # in the order of the ranks, so that all processes add alike
        if part is not None:
            total = part if total is None else total + part
    return total
