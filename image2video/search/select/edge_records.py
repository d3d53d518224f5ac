"""What is written down of every decision: the scores it was based on, and how decided it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from image2video.search.rank.ranking import DECIDED, criterion_first, lead_of
from image2video.search.score.scores import Scores

LEAST_IMAGES = 256
"""Held-out images that are scored at least before a score may end early."""


def hurt_most(scores: Scores, criterion: str) -> list[int]:
    """The masked parts by how much their removal hurts, most first.

    Variant 0 of the scores is the unmasked cell, so part p is variant p + 1.
    """
    return sorted(
        range(scores.variants - 1),
        key=lambda part: criterion_first(criterion, scores.accuracy(part + 1), -scores.mean_loss(part + 1), part),
    )


def clear_gap(criterion: str, errors: float | None, *, last: bool = False) -> Callable[[Scores], bool] | None:
    """A question to ask after every batch: are the first two parts further apart than so many standard errors?

    With `last` the two whose removal hurts least are asked about.

    Below 256 images the answer is no. Whoever looks at growing scores many times finds a gap more often than by one
    look, so `errors` should be larger than for one. None for `errors=None`.
    """
    if errors is None:
        return None

    def stop(scores: Scores) -> bool:
        if scores.n < LEAST_IMAGES:
            return False
        order = hurt_most(scores, criterion)
        if len(order) < 2:
            return True
        gap, error = gap_of(scores, order[-2:] if last else order, criterion)
        return gap > errors * error

    return stop


def record(scores: Scores, order: list[int], criterion: str = "accuracy") -> dict[str, Any]:
    """The scores of one decision as plain values: masked parts in their own order, gap of the first two with error."""
    parts = range(1, scores.variants)
    gaps = {} if len(order) < 2 else {name: gap_of(scores, order, name) for name in ("accuracy", "loss")}
    return {
        "decided_by": "scores",
        "images": scores.n,
        "accuracy": scores.accuracy(0),
        "loss": scores.mean_loss(0),
        "masked_accuracy": [scores.accuracy(v) for v in parts],
        "masked_loss": [scores.mean_loss(v) for v in parts],
        "drop_error": [scores.accuracy_gap(0, v)[1] for v in parts],
        "loss_drop_error": [scores.loss_gap(v, 0)[1] for v in parts],
        "chosen": order[0],
        **gaps_record(gaps, criterion),
    }


def tau_record(chosen: int) -> dict[str, Any]:
    """The record of a choice that was read from τ, since the budget was spent: there are no scores."""
    scored = ("accuracy", "loss", "masked_accuracy", "masked_loss", "drop_error", "loss_drop_error")
    gaps = ("gap", "gap_error", "loss_gap", "loss_gap_error")
    return {"decided_by": "tau", "images": 0, **dict.fromkeys(scored + gaps), "chosen": chosen, "decided": False}


def mean_record(records: Sequence[dict[str, Any]], criterion: str) -> dict[str, Any]:
    """The record of one edge over several orders: means, and the part whose removal hurts most on average.

    The error of a mean drop, and of the gap, adds two parts in squares: the mean of the orders' own errors (they score
    the same images, so that part does not shrink with the orders), and the spread between the orders over √orders.
    """
    parts = range(len(records[0]["masked_accuracy"]))
    drops = [[r["accuracy"] - r["masked_accuracy"][p] for r in records] for p in parts]
    rises = [[r["masked_loss"][p] - r["loss"] for r in records] for p in parts]

    def key(part: int) -> tuple[float, float, int]:
        # Equal counts may give means that differ in the last bit: those are ties.
        drop, rise = round(_mean(drops[part]), 12), round(_mean(rises[part]), 12)
        return criterion_first(criterion, -drop, -rise, part)

    order = sorted(parts, key=key)
    gaps = {}
    if len(order) > 1:
        gaps["accuracy"] = _mean_gap(drops, [r["drop_error"] for r in records], order)
        gaps["loss"] = _mean_gap(rises, [r["loss_drop_error"] for r in records], order)
    return {
        "decided_by": "orders",
        "orders": len(records),
        "images": min(r["images"] for r in records),
        "accuracy": _mean([r["accuracy"] for r in records]),
        "loss": _mean([r["loss"] for r in records]),
        "masked_accuracy": [_mean([r["masked_accuracy"][p] for r in records]) for p in parts],
        "masked_loss": [_mean([r["masked_loss"][p] for r in records]) for p in parts],
        "drop_error": [_error(drops[p], [r["drop_error"][p] for r in records]) for p in parts],
        "loss_drop_error": [_error(rises[p], [r["loss_drop_error"][p] for r in records]) for p in parts],
        "chosen": order[0],
        **gaps_record(gaps, criterion),
    }


def gap_of(scores: Scores, order: list[int], criterion: str) -> tuple[float, float]:
    """How much more the removal of the first of `order` costs than that of the second, with its standard error."""
    # The cell is better without the second part than without the first.
    return lead_of(scores, order[1] + 1, order[0] + 1, criterion)


def _mean_gap(
    costs: Sequence[Sequence[float]], errors: Sequence[Sequence[float]], order: Sequence[int]
) -> tuple[float, float]:
    """The mean over the orders of the first part's cost above the second's, with its error."""
    first, second = order[0], order[1]
    gaps = [a - b for a, b in zip(costs[first], costs[second], strict=True)]
    # Both costs are measured against the same unmasked cell and so err alike: the sum of squares is rather too large.
    return _mean(gaps), _error(gaps, [(e[first] ** 2 + e[second] ** 2) ** 0.5 for e in errors])


def _error(values: Sequence[float], errors: Sequence[float]) -> float:
    """The error of the mean of one value per order, each with its own error; see `mean_record`."""
    mean, count = _mean(values), len(values)
    between = 0.0
    if count > 1:
        between = sum((value - mean) ** 2 for value in values) / (count - 1) / count
    return (_mean(errors) ** 2 + between) ** 0.5


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def gaps_record(gaps: dict[str, tuple[float, float]], criterion: str) -> dict[str, Any]:
    """The gaps as a record holds them, and whether the criterion's gap is decided; a single part is decided."""
    gap, gap_error = gaps.get("accuracy", (None, None))
    loss_gap, loss_gap_error = gaps.get("loss", (None, None))
    judged = gaps.get(criterion)
    return {
        "gap": gap,
        "gap_error": gap_error,
        "loss_gap": loss_gap,
        "loss_gap_error": loss_gap_error,
        "decided": judged is None or judged[0] > DECIDED * judged[1],
    }
