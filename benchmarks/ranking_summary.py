"""How well scores of chains agree with the truth: Kendall's τ-b, its interval, and what the best choice would miss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Costs = Mapping[str, float | None]

RESAMPLES = 4000
PAPER = "perturbation"
RECORDED = {
    "perturbation": (
        *("perturbation", "perturbation_loss", "perturbation, best path"),
        *("argmax", "argmax, best path"),
    ),
    "frozen": ("frozen", "frozen_loss", "frozen, best path"),
    "one_shot": ("one_shot", "one_shot_loss"),
    "fixed_weights": ("fixed_weights", "fixed_weights_loss"),
}
"""The orders of chains that each run gives; `_loss` judges by the loss instead of the accuracy."""


def kendall_tau(a: Values, b: Values) -> float:
    """Kendall's τ-b of two lists of n values (ties count in the denominator); NaN where one of them is constant."""
    i, j = np.triu_indices(len(a), 1)
    left, right = np.sign(a[i] - a[j]), np.sign(b[i] - b[j])
    pairs = np.sqrt(np.abs(left).sum() * np.abs(right).sum())
    return float((left * right).sum() / pairs) if pairs else float("nan")


def mean_tau(scores: Values, truth: Values) -> float:
    """The mean over the rows of `scores` (search seeds, chains) of τ with the mean of `truth` (seeds, chains).

    A constant row orders nothing and counts as 0.
    """
    target = truth.mean(0)
    return float(np.mean([np.nan_to_num(kendall_tau(row, target)) for row in scores]))


def regret(scores: Values, truth: Values) -> list[float]:
    """Per row of `scores` the accuracy that its first chain lacks to the best one; chains that tie count with their
    mean."""
    target = truth.mean(0)
    return [float(target.max() - target[row == row.max()].mean()) for row in scores]


@dataclass(frozen=True)
class Draws:
    """Resamples of the chains, of the truth's seeds and of the searches' seeds, the same for every selection."""

    chains: NDArray[np.int64]
    truth: NDArray[np.int64]
    searches: NDArray[np.int64]


def draws(chains: int, truth: int, searches: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Draws:
    """Draws with replacement by `seed`."""
    generator = np.random.default_rng(seed)

    def indices(count: int) -> NDArray[np.int64]:
        return generator.integers(count, size=(resamples, count))

    return Draws(indices(chains), indices(truth), indices(searches))


def resampled(scores: Values, truth: Values, by: Draws) -> Values:
    """`mean_tau` of every resample."""
    found = []
    for chains, seeds, searches in zip(by.chains, by.truth, by.searches, strict=True):
        found.append(mean_tau(scores[searches][:, chains], truth[seeds][:, chains]))
    return np.array(found)


def interval(values: Values) -> tuple[float, float]:
    """The 95 % percentile interval of resampled values."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def summary_rows(truth: Values, scores: Mapping[str, Values], costs: Mapping[str, Costs]) -> list[dict[str, Any]]:
    """A row per selection, the highest τ first: τ with interval, its lead over the paper's selection, regret, cost.

    truth: (seeds, chains), accuracies 0 … 1; scores: (search seeds, chains) per selection, larger is better.
    """
    by = {n: draws(truth.shape[1], truth.shape[0], n) for n in {len(values) for values in scores.values()}}
    samples = {name: resampled(values, truth, by[len(values)]) for name, values in scores.items()}
    rows = []
    for name, values in scores.items():
        target = truth.mean(0)
        low, high = interval(samples[name])
        lead: dict[str, float | None] = {"lead": None, "lead_low": None, "lead_high": None}
        if name != PAPER and PAPER in scores and len(scores[PAPER]) == len(values):
            difference = interval(samples[name] - samples[PAPER])
            mean = mean_tau(values, truth) - mean_tau(scores[PAPER], truth)
            lead = {"lead": mean, "lead_low": difference[0], "lead_high": difference[1]}
        points = [100 * value for value in regret(values, truth)]
        rows.append(
            {
                "selection": name,
                "tau": mean_tau(values, truth),
                "tau_low": low,
                "tau_high": high,
                "tau_by_seed": [None if np.isnan(t := kendall_tau(row, target)) else t for row in values],
                **lead,
                "regret_points": float(np.mean(points)),
                "regret_by_seed": points,
                "searches": len(values),
                **costs.get(name, {}),
            }
        )
    return sorted(rows, key=lambda row: -row["tau"])


def chance_row(truth: Values) -> dict[str, Any]:
    """What a random order is expected to give: τ 0, and the mean chain."""
    target = truth.mean(0)
    return {
        "selection": "random (expected)",
        "tau": 0.0,
        "regret_points": 100 * float(target.max() - target.mean()),
        "searches": None,
    }


def truth_facts(truth: Values) -> dict[str, Any]:
    """How far the truth itself can be trusted: τ between its seeds, the spread of chains, the noise of one run."""
    seeds = range(len(truth))
    pairs = [kendall_tau(truth[a], truth[b]) for a in seeds for b in seeds if a < b]
    target = truth.mean(0)
    noise = float(truth.std(axis=0, ddof=1).mean()) if len(truth) > 1 else float("nan")
    return {
        "seeds": len(truth),
        "chains": truth.shape[1],
        "tau_between_seeds": float(np.mean(pairs)) if pairs else None,
        "best_points": 100 * float(target.max()),
        "worst_points": 100 * float(target.min()),
        "spread_points": 100 * float(target.std(ddof=1)),
        "seed_deviation_points": None if np.isnan(noise) else 100 * noise,
    }


def repeated_facts(labels: list[str], accuracies: dict[tuple[str, int], float]) -> list[dict[str, Any]]:
    """`truth_facts` of every pair of seeds over the chains that both have: a second seed need not be complete."""
    seeds = sorted({seed for _, seed in accuracies})
    facts = []
    for a, b in ((a, b) for a in seeds for b in seeds if a < b):
        both = [label for label in labels if (label, a) in accuracies and (label, b) in accuracies]
        if len(both) >= 3:
            pair = np.array([[accuracies[label, seed] for label in both] for seed in (a, b)])
            facts.append({"first_seed": a, "second_seed": b, **truth_facts(pair)})
    return facts


def shortest_first(chains: Sequence[Sequence[Any]], searches: int) -> Values:
    """The scores of a rule that measures nothing: fewer ops are better."""
    return np.tile(np.array([-float(len(chain)) for chain in chains]), (searches, 1))


def gather(runs: list[dict[str, Any]], labels: list[str]) -> tuple[dict[str, Values], dict[str, Costs]]:
    """Scores (search seeds, chains) and mean cost per order of chains, from the records of the runs."""
    scores: dict[str, Values] = {}
    costs: dict[str, Costs] = {}
    for name, orders in RECORDED.items():
        found = sorted((r for r in runs if r["run"] == name), key=lambda r: r["seed"])
        for record in found:
            if record["chains"] != labels:
                raise ValueError(f"the record of {name}, seed {record['seed']}, is of other chains")
        for order in orders if found else ():
            scores[order] = np.array([r["scores"][order] for r in found])
            own = [r.get("costs", {}).get(order.removesuffix(", best path"), r) for r in found]
            costs[order] = {
                key: None if own[0][key] is None else float(np.mean([cost[key] for cost in own]))
                for key in ("frames", "evaluated_frames", "seconds")
            }
    return scores, costs


def chain_rows(labels: list[str], truth: Values, scores: dict[str, Values]) -> list[dict[str, Any]]:
    """A row per chain, the best first: its accuracies, and its mean score by every selection."""
    rows = []
    for index, label in enumerate(labels):
        by_seed = [round(100 * value, 2) for value in truth[:, index].tolist()]
        rows.append(
            {
                "chain": label,
                "accuracy": float(np.mean(by_seed)),
                "by_seed": by_seed,
                "scores": {name: float(values[:, index].mean()) for name, values in scores.items()},
            }
        )
    return sorted(rows, key=lambda row: -row["accuracy"])
