"""What changes in the course of a search: the learning rate and the temperature."""

from __future__ import annotations

import math


def cosine(high: float, low: float, share: float) -> float:
    """Half a cosine from `high` (share 0) to `low` (share 1): the learning rate after a share of the work."""
    return low + (high - low) * 0.5 * (1 + math.cos(math.pi * share))


TUNING_RATE = 0.1
"""Tuning between decisions begins with this share of the learning rate, as the code of the cited selection does."""


def tuning_rate(lr: float, lr_min: float, share: float) -> float:
    """Half a cosine from a tenth of `lr` to `lr_min`, or to that tenth where it is smaller."""
    start = TUNING_RATE * lr
    return cosine(start, min(lr_min, start), share)


def linear(start: float, end: float, share: float) -> float:
    """A straight line from `start` (share 0) to `end` (share 1): the temperature of `single_path`."""
    return start + (end - start) * share


def work_share(done: int, total: int, spent: float, low: float, high: float) -> float:
    """How much of a stage is done, 0 … 1: by its epochs, or by the budget where that ends it first.

    The stage has `total` epochs, of which `done` are over; of the whole budget a share `spent` is used, and the stage
    may use it from `low` to `high`. How many epochs a budget of minutes allows is not known beforehand. So rates follow
    the epochs or the budget, whichever is further. The budget is counted in steps of 1 / `total`: a budget that is
    never reached then changes nothing.
    """
    if total == 0:
        return 1.0
    by_budget = math.floor(total * (spent - low) / (high - low)) / total
    return min(1.0, max(done / total, by_budget))
