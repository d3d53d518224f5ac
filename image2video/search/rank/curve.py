"""The curve of gain against T of greedily chosen sets, and which T to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from image2video.clip.frame_set import FrameSet
from image2video.clip.genotype import Genotype
from image2video.search.rank.calibration import calibrate
from image2video.search.rank.frame_cache import FrameCache
from image2video.search.rank.frame_choice import CurvePoint, FrameScores
from image2video.search.rank.greedy import set_logits
from image2video.search.rank.ranking import TOLERANCE
from image2video.search.score.scores import PairedScores


@dataclass(frozen=True)
class ScoredSets:
    """Several sets of frames on the same images, all pairs of which can be compared.

    Attributes:
        plain: accuracy and loss.
        scaled: accuracy and calibrated loss.
    """

    plain: PairedScores
    scaled: PairedScores

    @classmethod
    def of(cls, logits: Sequence[Tensor], temperatures: Sequence[float], labels: Tensor) -> Self:
        """The scores of predictions `(n, K)`, each with its temperature."""
        right = torch.stack([z.argmax(-1) == labels for z in logits])
        plain = torch.stack([cross_entropy(z, labels, reduction="none") for z in logits])
        scaled = torch.stack(
            [cross_entropy(z / t, labels, reduction="none") for z, t in zip(logits, temperatures, strict=True)]
        )
        return cls(PairedScores.from_images(right, plain), PairedScores.from_images(right, scaled))

    def of_set(self, number: int) -> FrameScores:
        """The scores of one set; set 0 is the image itself."""
        return FrameScores(
            self.plain.n,
            self.plain.accuracy(number),
            self.plain.mean_loss(number),
            self.scaled.mean_loss(number),
            *self.plain.accuracy_gap(number, 0),
            *self.plain.loss_gap(number, 0),
            *self.scaled.loss_gap(number, 0),
        )


@dataclass(frozen=True)
class GreedySet:
    """A set of frames that a greedy search passed.

    Attributes:
        frames: numbers of candidates, in the order of choice.
        aggregate: how they are averaged.
    """

    frames: tuple[int, ...]
    aggregate: str


def prefixes(order: Sequence[int], aggregate: str) -> list[GreedySet]:
    """The sets of 1, 2, … frames of a greedy order."""
    return [GreedySet(tuple(order[:count]), aggregate) for count in range(1, len(order) + 1)]


def set_temperatures(choosing: FrameCache, sets: Sequence[GreedySet]) -> list[float]:
    """The temperature of each set on the images that choose."""
    return [
        calibrate(set_logits(choosing, item.frames, item.aggregate)[None], choosing.labels)[0].item() for item in sets
    ]


def scored_sets(cache: FrameCache, sets: Sequence[GreedySet], temperatures: Sequence[float]) -> ScoredSets:
    """The scores of sets on the images of a cache."""
    logits = [set_logits(cache, item.frames, item.aggregate) for item in sets]
    return ScoredSets.of(logits, temperatures, cache.labels)


def smallest_of_the_best(sets: Sequence[GreedySet], scores: ScoredSets, criterion: str, max_cost: float | None) -> int:
    """The set that `FrameChoice.best` describes; set 0 is the image itself, which is no set to choose here."""

    def rank(number: int) -> tuple[float, float, int]:
        wrong = -scores.scaled.accuracy(number) if criterion == "accuracy" else 0.0
        return wrong, scores.scaled.mean_loss(number), number

    allowed = [number for number in range(1, len(sets)) if max_cost is None or len(sets[number].frames) <= max_cost]
    best = min(allowed, key=rank)
    equal = []
    for number in allowed:
        worse, loss_error = scores.scaled.loss_gap(number, best)
        behind, error = scores.scaled.accuracy_gap(best, number)
        close = worse <= TOLERANCE * loss_error
        # As in a ranking of chains: within the error in accuracy and in loss.
        if close and (criterion != "accuracy" or behind <= TOLERANCE * error):
            equal.append(number)
    return min(equal, key=lambda number: (len(sets[number].frames), rank(number)))


def curve_points(
    chains: Sequence[Genotype],
    sets: Sequence[GreedySet],
    temperatures: Sequence[float],
    choosing: ScoredSets,
    judging: ScoredSets | None,
) -> tuple[CurvePoint, ...]:
    """The points of all sets but the first one, which is the image itself and the reference."""
    return tuple(
        CurvePoint(
            FrameSet(tuple(chains[frame] for frame in sets[number].frames)),
            sets[number].aggregate,
            temperatures[number],
            choosing.of_set(number),
            None if judging is None else judging.of_set(number),
        )
        for number in range(1, len(sets))
    )
