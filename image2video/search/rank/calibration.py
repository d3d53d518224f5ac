"""Temperature scaling, the loss that is left after it, and how well predictions are calibrated."""

from __future__ import annotations

import torch
from torch import Tensor

from image2video.search.score.task import IGNORED

SHARPEST, SOFTEST = 0.05, 20.0
"""The temperatures between which one is looked for."""

BINS = 15
"""Of the calibration error."""
_CLOSE_ENOUGH = 1e-8  # nats that a further step would gain
_MOST_STEPS = 60


def calibrate(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Fit a temperature to each of V predictions of n images (Guo et al., ICML 2017), by Newton's method.

    The mean cross-entropy of logits · b is convex in b = 1 / temperature, so it has one minimum.

    Args:
        logits: `(V, n, K)`, float32 or float64.
        labels: `(n,)`, classes.

    Returns:
        The temperatures and the mean cross-entropies in nats that they leave, `(V,)` each, float64.
    """
    logits = logits - logits.amax(-1, keepdim=True)  # so that nothing overflows at the sharpest temperature
    true = logits.gather(-1, labels.expand(logits.shape[0], -1).unsqueeze(-1)).squeeze(-1)
    count = logits.shape[0]
    # The minimum lies between these.
    low, high = (
        torch.full((count,), 1 / end, dtype=torch.float64, device=logits.device) for end in (SOFTEST, SHARPEST)
    )
    inverse = torch.ones_like(low)
    loss = torch.zeros_like(low)
    for _ in range(_MOST_STEPS):
        loss, slope, curvature = _expanded(logits, true, inverse)
        rises = slope > 0
        low, high = torch.where(rises, low, inverse), torch.where(rises, inverse, high)
        done = (slope.square() <= 2 * _CLOSE_ENOUGH * curvature) | (low >= high) | (slope == 0)
        if bool(done.all()):
            break
        newton = inverse - slope / curvature.clamp_min(1e-300)
        # A step beyond an end of the range goes to that end once; one beyond a point that was tried halves the range.
        ends = torch.where(rises, torch.full_like(low, 1 / SOFTEST), torch.full_like(low, 1 / SHARPEST))
        untried = torch.where(rises, low == ends, high == ends)
        other = torch.where(untried, ends, (low * high).sqrt())
        step = torch.where((newton > low) & (newton < high), newton, other)
        inverse = torch.where(done, inverse, step)
    return 1 / inverse, loss


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature, from 0.05 to 20, that logits `(n, K)` are divided by for the lowest cross-entropy.

    Images whose label is the one that cross-entropy leaves out do not count.
    """
    known = labels != IGNORED
    return calibrate(logits[None, known], labels[known])[0].item()


def _expanded(logits: Tensor, true: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The mean cross-entropy at inverse temperatures `(V,)`, with its first two derivatives; the largest logit is 0."""
    weights = (logits * inverse.to(logits.dtype)[:, None, None]).exp_()
    total = weights.sum(-1)
    weighted = weights.mul_(logits)
    mean = weighted.sum(-1) / total
    square = torch.linalg.vecdot(weighted, logits) / total
    losses = total.log().double() - inverse[:, None] * true.double()
    return losses.mean(1), (mean - true).double().mean(1), (square - mean.square()).double().clamp_min(0).mean(1)


def calibration_error(logits: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """The expected calibration error (Guo et al., ICML 2017): how far confidence is from accuracy.

    Args:
        logits: `(n, K)`.
        labels: `(n,)`.
        bins: of equal width.

    Returns:
        The mean over images of |accuracy − confidence| of their bins, 0 … 1.
    """
    confidence, answer = logits.double().softmax(1).max(1)
    right = (answer == labels).double()
    places = (confidence * bins).long().clamp_max(bins - 1)
    gaps = torch.zeros(bins, dtype=torch.float64, device=logits.device).index_add_(0, places, right - confidence)
    return gaps.abs().sum().item() / len(labels)
