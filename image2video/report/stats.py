"""Means and t intervals of a few seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit  # what scipy.stats.t.ppf calls, without the second that scipy.stats takes to import


def t_quantile(dof: int, level: float = 0.95) -> float:
    """The t with P(|X| < t) = `level`, 0 < level < 1, of Student's t with `dof` ≥ 1 degrees of freedom."""
    return float(stdtrit(dof, (1 + level) / 2))


@dataclass(frozen=True)
class Interval:
    """A mean with its t interval.

    Attributes:
        mean: in the values' unit.
        half_width: of the interval, `nan` for n = 1.
        n: how many values.
    """

    mean: float
    half_width: float
    n: int

    @property
    def low(self) -> float:
        """The lower end."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """The upper end."""
        return self.mean + self.half_width

    @property
    def decided(self) -> bool:
        """Whether the interval says a sign: n ≥ 2, some spread between the values, and 0 outside.

        Equal values give an interval of no width, which a coarse measure (accuracy on few images) produces by accident.
        """
        return self.n >= 2 and self.half_width > 1e-9 and (self.low > 0 or self.high < 0)


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """The mean and its two-sided Student t interval (n − 1 degrees of freedom).

    Args:
        values: one or more.
        level: how often such an interval holds the true mean.

    Returns:
        The interval; of one value, one without a width.
    """
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, math.nan, 1)
    return Interval(mean, t_quantile(n - 1, level) * math.sqrt(_variance_of_mean(values)), n)


def paired_difference(a: Mapping[int, float], b: Mapping[int, float], level: float = 0.95) -> Interval | None:
    """The interval of a − b over the seeds that both have.

    Args:
        a: values by seed.
        b: values by seed.
        level: as in `mean_interval`.

    Returns:
        The interval; None where no seed is shared.
    """
    shared = sorted(a.keys() & b.keys())
    return mean_interval([a[seed] - b[seed] for seed in shared], level) if shared else None


def pooled_difference(
    a: Mapping[int, float], pool: Sequence[Mapping[int, float]], level: float = 0.95
) -> Interval | None:
    """The interval of a − the mean of a pool, paired by seed.

    A pool stands for the draws that it might have held, so the variance of the mean is the sum of two: over the seeds
    (means of the pool) and over the pool (means of the seeds), with Satterthwaite's degrees of freedom (Biometrics
    Bulletin, 1946), rounded down. What varies in both is counted twice, so the interval is rather too wide.

    Args:
        a: values by seed.
        pool: the values by seed of each draw.
        level: as in `mean_interval`.

    Returns:
        The interval; without a width for one seed, that of `paired_difference` for a pool of one, and None where no
        seed is shared by all.
    """
    shared = sorted(set(a).intersection(*pool)) if pool else []
    if not shared:
        return None
    differences = [[a[seed] - member[seed] for seed in shared] for member in pool]
    by_seed = [math.fsum(column) / len(pool) for column in zip(*differences, strict=True)]
    by_draw = [math.fsum(row) / len(shared) for row in differences]
    over_seeds = mean_interval(by_seed, level)
    if over_seeds.n == 1 or len(pool) == 1:
        return over_seeds
    parts = [_variance_of_mean(by_seed), _variance_of_mean(by_draw)]
    variance = math.fsum(parts)
    if variance == 0:
        return over_seeds
    dof = math.floor(variance**2 / math.fsum([parts[0] ** 2 / (len(by_seed) - 1), parts[1] ** 2 / (len(by_draw) - 1)]))
    return Interval(over_seeds.mean, t_quantile(max(dof, 1), level) * math.sqrt(variance), over_seeds.n)


def _variance_of_mean(values: Sequence[float]) -> float:
    """The variance of the mean of two values or more."""
    mean = math.fsum(values) / len(values)
    return math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values)
