"""What a chosen chain gains on images that chose nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from image2video.search.rank.calibration import fit_temperature
from image2video.search.rank.clip_candidate import ClipCandidate
from image2video.search.rank.gain import GainEstimate
from image2video.search.rank.halving import Predictor
from image2video.search.score.measure import score_variants
from image2video.search.score.scores import PairedScores, Scores
from image2video.search.score.task import ClassificationTask, Task


def estimate_gain(
    identity: ClipCandidate,
    chosen: ClipCandidate,
    predictor: Predictor,
    batches: Iterable[tuple[Tensor, Tensor]],
    task: Task,
) -> GainEstimate:
    """Score a clip and the image itself on images that chose nothing; the model is to be in eval mode.

    Raises what `score_variants` raises.
    """
    pair = (identity, chosen)
    kept: list[Tensor] = []
    labels: list[Tensor] = []
    scaled = isinstance(task, ClassificationTask)

    def predicted(images: Tensor) -> Iterable[Any]:
        found = predictor.predictions(images, pair)
        if scaled:
            found = list(found)
            kept.append(torch.stack(found).double().cpu())
        return found

    def read() -> Iterable[tuple[Tensor, Tensor]]:
        for images, y in batches:
            labels.append(y.cpu())
            yield images, y

    scores = score_variants(predicted, read(), task=task)
    losses = _scaled_losses(torch.cat(kept, dim=1), torch.cat(labels)) if scaled else {}
    return GainEstimate(**_figures(scores), **losses)


def estimate_of_logits(logits: Tensor, labels: Tensor, temperatures: tuple[float, float] | None = None) -> GainEstimate:
    """The gain of a classifier's clip over the image itself, from logits `(2, n, K)` of the image and of the clip.

    `temperatures` are those of the two, fitted on other images; without them each half of the images fits those of the
    other half.
    """
    scored = [ClassificationTask().per_image(z, labels) for z in logits]
    scores = PairedScores.from_images(torch.stack([right for right, _ in scored]), torch.stack([x for _, x in scored]))
    logits = logits.double()
    if temperatures is None:
        return GainEstimate(**_figures(scores), **_scaled_losses(logits, labels))
    losses = [cross_entropy(z / t, labels, reduction="none") for z, t in zip(logits, temperatures, strict=True)]
    return GainEstimate(**_figures(scores), **_paired_losses(torch.stack(losses)))


def _figures(scores: Scores) -> dict[str, Any]:
    """The fields that every task has; variant 0 is the image itself."""
    gain, error = scores.accuracy_gap(1, 0)
    loss_gain, loss_error = scores.loss_gap(1, 0)
    return {
        "images": scores.n,
        "accuracy": scores.accuracy(1),
        "bare_accuracy": scores.accuracy(0),
        "gain": gain,
        # One image more that changes adds 1 / n to the mean of the squares.
        "gain_error": math.hypot(error, 1 / scores.n),
        "loss": scores.mean_loss(1),
        "bare_loss": scores.mean_loss(0),
        "loss_gain": loss_gain,
        "loss_gain_error": loss_error,
    }


def _scaled_losses(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """Cross-entropies after temperature scaling, from logits `(2, n, K)` of the image itself and of the clip.

    Nothing where there are too few images for a temperature and a spread on either half.
    """
    if len(labels) < 4:
        return {}
    losses = torch.empty(logits.shape[:2], dtype=torch.float64)
    halves = (slice(0, None, 2), slice(1, None, 2))
    for variant, z in enumerate(logits):
        for fitted, judged in (halves, halves[::-1]):
            temperature = fit_temperature(z[fitted], labels[fitted])
            losses[variant, judged] = cross_entropy(z[judged] / temperature, labels[judged], reduction="none")
    return _paired_losses(losses)


def _paired_losses(losses: Tensor) -> dict[str, Any]:
    """The fields of scaled cross-entropies `(2, n)`, of the image itself and of the clip."""
    difference = losses[1] - losses[0]
    return {
        "scaled_loss": losses[1].mean().item(),
        "bare_scaled_loss": losses[0].mean().item(),
        "scaled_loss_gain": difference.mean().item(),
        "scaled_loss_gain_error": (difference.std() / len(difference) ** 0.5).item(),
    }
