"""Which of several clips to use: the cheapest that is as good as the best, on the images that choose."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from image2video.search.rank.ranking import order_of
from image2video.search.score.scores import Scores

_ROUNDING = 1e-9
"""What two clips of the same frames may differ by."""


def smallest_of_the_best(
    logits: Sequence[Tensor], labels: Tensor, temperatures: Sequence[float], costs: Sequence[float]
) -> int:
    """Choose a clip.

    The best one has the lowest cross-entropy after temperature scaling. The choice is the cheapest whose cross-entropy
    *and* accuracy are within one standard error of it, paired over the images; of equally cheap ones the bare network,
    then the one with the lower cross-entropy. So the image itself stays unless something is better than it.

    Args:
        logits: `(n, K)` of each clip, the bare network first.
        labels: `(n,)` int64.
        temperatures: one for each clip.
        costs: likewise.

    Returns:
        Which one.
    """
    scaled = [z.double() / t for z, t in zip(logits, temperatures, strict=True)]
    losses = torch.stack([cross_entropy(z, labels, reduction="none") for z in scaled])
    right = torch.stack([(z.argmax(1) == labels).double() for z in scaled])
    means = losses.mean(1)
    best = int(means.argmin())
    close = [
        number
        for number in range(len(logits))
        if _within(losses[number] - losses[best]) and _within(right[best] - right[number])
    ]
    return min(close, key=lambda number: (costs[number], number > 0, float(means[number]), number))


def _within(difference: Tensor) -> bool:
    """Whether a paired difference is at most one standard error, or rounding."""
    error = difference.std() / len(difference) ** 0.5
    return bool(difference.mean() <= error + _ROUNDING)


def cheapest_of_the_best(scores: Scores, costs: Sequence[float]) -> int:
    """Choose a clip by scores that know their own errors, such as those of segmentors.

    The best one has the highest metric. The choice is the cheapest whose metric *and* loss are within one standard
    error of it, paired over the images; of equally cheap ones the bare network, then the one with the higher metric.

    Args:
        scores: of each clip, a variant each, the bare network first.
        costs: likewise.

    Returns:
        Which one.
    """
    best = order_of(scores)[0]
    close = []
    for number in range(scores.variants):
        behind, error = scores.accuracy_gap(best, number)
        worse, loss_error = scores.loss_gap(number, best)
        if behind <= error + _ROUNDING and worse <= loss_error + _ROUNDING:
            close.append(number)
    return min(close, key=lambda number: (costs[number], number > 0, -scores.accuracy(number), number))
