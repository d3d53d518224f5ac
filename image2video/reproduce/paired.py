"""Differences between arms that are paired by seed and by test image, with a bootstrap over both.

An interval over seeds says how far other trainings would differ on these test images. Other test images would differ,
too: the bootstrap draws seeds and images anew, both with replacement, and takes the difference of every draw. Where
nothing is trained there are no other trainings, and the images are all that is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from image2video.errors import InputError
from image2video.report.stats import Interval, pooled_difference

RESAMPLES = 2000
_AT_ONCE = 100  # draws, each of which needs a count per image

Answers = Mapping[int, np.ndarray]
"""Seed -> which test images are right, `(n,)` bool."""


@dataclass(frozen=True)
class Gap:
    """A difference in points of accuracy.

    Attributes:
        mean: of all shared seeds and all images.
        low: the 2.5 % quantile of the bootstrap.
        high: the 97.5 % quantile.
        over_seeds: the t interval of the differences by seed, with the spread between the arms of a pool.
        images: of the test set.
        trained: whether the networks were trained; else other seeds would bring nothing else.
    """

    mean: float
    low: float
    high: float
    over_seeds: Interval
    images: int
    trained: bool = True

    @property
    def seeds(self) -> int:
        """How many seeds are shared; with one, only images are drawn."""
        return self.over_seeds.n

    @property
    def reading(self) -> str:
        """`ahead` or `behind` where both intervals leave 0 out, else `undecided`; `one seed` decides nothing.

        The bootstrap is too narrow where seeds are few, the t interval knows nothing of other images. Where nothing was
        trained, the interval over images decides alone.
        """
        if self.trained and self.seeds == 1:
            return "one seed"
        if (self.over_seeds.decided or not self.trained) and (self.low > 0 or self.high < 0):
            return "ahead" if self.low > 0 else "behind"
        return "undecided"


def paired_gap(
    a: Sequence[Answers], b: Sequence[Answers], resamples: int = RESAMPLES, *, trained: bool = True
) -> Gap | None:
    """How many points more images `a` gets right than `b`, over the seeds that all have.

    Args:
        a: the arms of one side, which count as one: their shares of right answers are averaged.
        b: the arms of the other side, likewise.
        resamples: draws of the bootstrap; they are the same in every call.
        trained: whether the networks were trained.

    Returns:
        The difference; None where no seed is shared.

    Raises:
        InputError: answers to different numbers of images.
    """
    shared = sorted(set.intersection(*(set(answers) for answers in (*a, *b)))) if a and b else []
    if not shared:
        return None
    lengths = {len(answers[seed]) for answers in (*a, *b) for seed in shared}
    if len(lengths) > 1:
        raise InputError(
            f"the arms were tested on {' and '.join(map(str, sorted(lengths)))} images; test them on equal ones"
        )
    differences = 100 * (_side(a, shared) - _side(b, shared))
    means = _draws(differences, resamples)
    low, high = np.quantile(means, (0.025, 0.975))
    side = {seed: 100 * float(share) for seed, share in zip(shared, _side(a, shared).mean(1), strict=True)}
    others = [{seed: 100 * float(arm[seed].mean()) for seed in shared} for arm in b]
    over_seeds = pooled_difference(side, others)
    assert over_seeds is not None  # the seeds are shared
    return Gap(float(differences.mean()), float(low), float(high), over_seeds, differences.shape[1], trained)


def _side(arms: Sequence[Answers], seeds: Sequence[int]) -> np.ndarray:
    """The share of a side's arms that are right, `(seeds, images)`."""
    return np.mean([[answers[seed] for seed in seeds] for answers in arms], axis=0)


def _draws(differences: np.ndarray, resamples: int) -> np.ndarray:
    """The mean difference of every draw of seeds and images, `(resamples,)`."""
    generator = np.random.default_rng(0)
    seeds, images = differences.shape
    found = []
    for begin in range(0, resamples, _AT_ONCE):
        count = min(_AT_ONCE, resamples - begin)
        by_seed = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=count) / seeds
        by_image = generator.multinomial(images, np.full(images, 1 / images), size=count) / images
        found.append(((by_seed @ differences) * by_image).sum(1))
    return np.concatenate(found)
