"""Means and t intervals of a few seeds, without a statistics library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache


def t_probability(t: float, dof: int) -> float:
    """P(|X| < t) of Student's t with `dof` ≥ 1 degrees of freedom (Abramowitz & Stegun 26.7.3 and 26.7.4)."""
    theta = math.atan(t / math.sqrt(dof))
    cos2 = math.cos(theta) ** 2
    odd = dof % 2
    term = math.cos(theta) if odd else 1.0
    total = term if dof > 1 else 0.0
    for k in range(1, (dof - 1) // 2 if odd else dof // 2):
        term *= cos2 * (2 * k / (2 * k + 1) if odd else (2 * k - 1) / (2 * k))
        total += term
    if odd:
        return 2 / math.pi * (theta + math.sin(theta) * total)
    return math.sin(theta) * total


@lru_cache(maxsize=256)
def t_quantile(dof: int, level: float = 0.95) -> float:
    """The t with P(|X| < t) = `level`, 0 < level < 1, for `dof` ≥ 1 degrees of freedom."""
    low, high = 0.0, 1.0
    while t_probability(high, dof) < level:
        low, high = high, high * 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if t_probability(middle, dof) < level else (low, middle)
    return (low + high) / 2


@dataclass(frozen=True)
class Interval:
    """A mean of `n` values with the half width of its t interval (`nan` for n = 1), in the values' unit."""

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
    """The mean of one or more values and its two-sided Student t interval (n − 1 degrees of freedom)."""
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, math.nan, 1)
    return Interval(mean, t_quantile(n - 1, level) * math.sqrt(_variance_of_mean(values)), n)


def paired_difference(a: Mapping[int, float], b: Mapping[int, float], level: float = 0.95) -> Interval | None:
    """The interval of a − b over the seeds that both have; None where they share none."""
    shared = sorted(a.keys() & b.keys())
    return mean_interval([a[seed] - b[seed] for seed in shared], level) if shared else None


def pooled_difference(
    a: Mapping[int, float], pool: Sequence[Mapping[int, float]], level: float = 0.95
) -> Interval | None:
    """The interval of a − the mean of a pool, paired by seed; None where no seed is shared by all.

    A pool stands for the draws that it might have held, so the variance of the mean is the sum of two: over the seeds
    (means of the pool) and over the pool (means of the seeds), with Satterthwaite's degrees of freedom (Biometrics
    Bulletin, 1946), rounded down. What varies in both is counted twice, so the interval is rather too wide. With one
    seed there is none (`nan`); a pool of one is `paired_difference`.
    """
    shared = sorted(a.keys() & set.intersection(*(set(member) for member in pool))) if pool else []
    if not shared:
        return None
    differences = [[a[seed] - member[seed] for seed in shared] for member in pool]
    by_seed = [math.fsum(column) / len(pool) for column in zip(*differences, strict=True)]
    over_seeds = mean_interval(by_seed, level)
    if over_seeds.n == 1 or len(pool) == 1:
        return over_seeds
    parts = [
        (_variance_of_mean(v), len(v) - 1) for v in (by_seed, [math.fsum(row) / len(shared) for row in differences])
    ]
    variance = math.fsum(part for part, _ in parts)
    if variance == 0:
        return over_seeds
    dof = math.floor(variance**2 / math.fsum(part**2 / dof for part, dof in parts))
    return Interval(over_seeds.mean, t_quantile(max(dof, 1), level) * math.sqrt(variance), over_seeds.n)


def _variance_of_mean(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values)
