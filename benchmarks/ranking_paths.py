"""What the records of a searched cell say of a chain: the mean, or the best, over all its paths through the cell.

A short chain lies on many paths (identities fill the rest), a chain as long as the cell is deep on one. The best of
many values is large even where they are noise, so `best path` prefers short chains before anything was measured; the
mean over paths does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch

from image2video import Genotype
from image2video.search import SearchSpace, chain_score_by_perturbation, chain_score_by_tau

BEST = ", best path"


def cell_scores(
    selection: str, edges: Sequence[Mapping[str, Any]], space: SearchSpace, chains: Sequence[Genotype]
) -> dict[str, list[float]]:
    """The orders of a run through the cell from its records of edges: by accuracy, by loss, and of a search by τ."""
    by_edge = sorted(edges, key=lambda entry: entry["edge"])
    drops = np.array([[e["accuracy"] - masked for masked in e["masked_accuracy"]] for e in by_edge])
    rises = np.array([[masked - e["loss"] for masked in e["masked_loss"]] for e in by_edge])
    found = {
        selection: [mean_over_paths(drops, space, chain) for chain in chains],
        f"{selection}_loss": [mean_over_paths(rises, space, chain) for chain in chains],
        f"{selection}{BEST}": [chain_score_by_perturbation(edges, space, chain) for chain in chains],
    }
    if selection == "perturbation":
        weights = np.log(np.array([e["weights"] for e in by_edge]).clip(1e-300))
        found["argmax"] = [mean_over_paths(weights, space, chain) for chain in chains]
        found[f"argmax{BEST}"] = [chain_score_by_tau(torch.from_numpy(weights), space, chain) for chain in chains]
    return found


def mean_over_paths(values: np.ndarray, space: SearchSpace, chain: Genotype) -> float:
    """The mean, over all ways in which the cell gives `chain`, of the mean of `values[edge, candidate]` on the way."""
    found = [np.mean([values[edge, candidate] for edge, candidate in way]) for way in ways(space, chain)]
    return float(np.mean(found))


def ways(space: SearchSpace, chain: Genotype) -> Iterator[list[tuple[int, int]]]:
    """Every path from an input to the last node with candidates, one transform each, that give `chain`."""
    candidates = [candidate.chain for candidate in space.candidates]
    still, wanted = candidates.index(()), [candidates.index((transform,)) for transform in chain.chain]
    for path in _paths(space, space.num_nodes - 1):
        for places in combinations(range(len(path)), len(wanted)):
            ops = dict(zip(places, wanted, strict=True))
            yield [(edge, ops.get(place, still)) for place, edge in enumerate(path)]


def _paths(space: SearchSpace, node: int) -> Iterator[tuple[int, ...]]:
    if node < space.inputs:
        yield ()
        return
    for edge in space.incoming(node):
        for path in _paths(space, space.edges[edge][0]):
            yield (*path, edge)
