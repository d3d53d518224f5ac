"""Greedy forward selection of frames from cached predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from image2video.search.rank.calibration import calibrate
from image2video.search.rank.frame_cache import FrameCache

CRITERIA: tuple[str, ...] = ("calibrated", "accuracy")
"""What greedy selection may raise: the log-likelihood after temperature scaling, or the share of right answers."""

STARTS: tuple[str, ...] = ("identity", "best")
"""What it may begin with: the image itself, or the best single frame."""

LEAST_GAIN = 1e-6
"""Nats by which a frame must raise the calibrated log-likelihood; less is rounding."""

_BLOCK = 1 << 20  # numbers that are worked on at once: they stay in the processor's cache


def greedy_order(
    cache: FrameCache,
    most: int,
    *,
    average: str = "mean",
    criterion: str = "calibrated",
    start: str = "identity",
    on_step: Callable[[int], None] | None = None,
) -> list[int]:
    """Choose frames one by one, each the one whose addition raises the criterion most.

    After greedy policy search (Molchanov et al., UAI 2020). Every frame is taken once at most: a second time it would
    cost a forward pass and change weights alone. It ends where no frame raises the criterion, so the criterion rises
    with every frame. Of equal frames the first one is taken.

    Args:
        cache: the predictions of all frames; frame 0 is the image itself.
        most: frames of the largest set.
        average: `mean` of the logits, or `mean_prob`.
        criterion: one of `CRITERIA`; under `accuracy` the calibrated log-likelihood decides between equal ones.
        start: one of `STARTS`.
        on_step: called with the number of frames after each.

    Returns:
        The frames' numbers in the order of their choice: the set of T frames is the first T.
    """
    order: list[int] = []
    total: Tensor | None = None
    best = (float("inf"), float("inf"))
    while len(order) < min(most, len(cache.log_probs)):
        first = not order and start == "identity"
        rest = [0] if first else [frame for frame in range(len(cache.log_probs)) if frame not in order]
        keys = _keys(cache, rest, total, len(order) + 1, average, criterion)
        place = min(range(len(rest)), key=lambda number: keys[number])
        if not _is_better(keys[place], best):
            break
        best = keys[place]
        order.append(rest[place])
        total = added(total, cache.log_probs[rest[place]], average)
        if on_step is not None:
            on_step(len(order))
    return order


def added(total: Tensor | None, log_probs: Tensor, average: str) -> Tensor:
    """What a set's frames sum up to with one frame more, `(…, n, K)`: log-probabilities, or the log of a sum of them.

    Of `mean_prob` the sums are kept as logarithms, so that no small probability is lost.
    """
    if total is None:
        return log_probs
    return total + log_probs if average == "mean" else torch.logaddexp(total, log_probs)


def averaged(total: Tensor, count: int, average: str) -> Tensor:
    """The prediction of a set of `count` frames from what they sum up to: logits `(…, n, K)`."""
    # The log of a mean probability is that of the sum, less one number for all classes, which nothing here sees.
    return total / count if average == "mean" else total


def set_logits(cache: FrameCache, frames: Sequence[int], average: str) -> Tensor:
    """The prediction of a set of frames, `(n, K)`."""
    total: Tensor | None = None
    for frame in frames:
        total = added(total, cache.log_probs[frame], average)
    assert total is not None, "a set has a frame"
    return averaged(total, len(frames), average)


def _keys(
    cache: FrameCache, frames: list[int], total: Tensor | None, count: int, average: str, criterion: str
) -> list[tuple[float, float]]:
    """How good the set is with each of some frames added: smaller is better, the first number before the second."""
    _, images, classes = cache.log_probs.shape
    keys: list[tuple[float, float]] = []
    many = max(1, _BLOCK // (images * classes))
    for begin in range(0, len(frames), many):
        logits = averaged(added(total, cache.log_probs[frames[begin : begin + many]], average), count, average)
        losses = calibrate(logits, cache.labels)[1].tolist()
        wrong = [0.0] * len(losses)
        if criterion == "accuracy":
            wrong = (logits.argmax(-1) != cache.labels).sum(-1).tolist()
        keys += list(zip(wrong, losses, strict=True))
    return keys


def _is_better(key: tuple[float, float], best: tuple[float, float]) -> bool:
    return key[0] < best[0] or (key[0] == best[0] and key[1] < best[1] - LEAST_GAIN)
