"""Selections that measure nothing: the controls that a search has to beat."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from image2video.errors import StateError
from image2video.search.cell.topology import random_decisions
from image2video.search.score.scores import Scores
from image2video.search.select.selection import Measured, Selection
from image2video.search.space.space import SearchSpace
from image2video.search.state.config import SearchConfig
from image2video.search.state.seeds import seeded
from image2video.search.state.state import SearchState
from image2video.search.state.units import Unit


class Argmax(Selection):
    """Keeps the largest τ on every edge, and per node the edge whose largest weight is largest (DARTS; a control)."""

    name = "argmax"

    def units(self, space: SearchSpace, config: SearchConfig) -> list[Unit]:
        """Epochs of search, one reading, a score."""
        return [*(Unit("search", epoch) for epoch in range(config.epochs)), Unit("read"), Unit("score")]

    def decide(self, unit: Unit, run: Measured) -> None:
        """Read all edges and nodes from τ; the first of equal ones stays."""
        tau, decisions = run.tau(), run.state.decisions
        decisions.ops = {edge: largest_op(tau, edge) for edge in range(len(run.space.edges))}
        for node in range(run.space.inputs, run.space.num_nodes):
            decisions.sources[node] = largest_edge(tau, run.space.incoming(node))


class Random(Selection):
    """Draws the cell: no network, no training (the control that a search has to beat)."""

    name = "random"
    trains = False
    moves_tau = False

    def units(self, space: SearchSpace, config: SearchConfig) -> list[Unit]:
        """One draw."""
        return [Unit("read")]

    def decide(self, unit: Unit, run: Measured) -> None:
        """Draw a candidate for every edge and an edge for every node."""
        run.state.decisions = random_decisions(run.space, seeded(run.config.seed, "random"))


class Drawn(Measured):
    """A run without a network, for strategies that measure nothing."""

    def __init__(self, space: SearchSpace, config: SearchConfig) -> None:
        self.space, self.config, self.state = space, config, SearchState()

    def tau(self) -> Tensor:
        """There is no τ."""
        raise StateError("a selection that trains nothing has no τ to read")

    def score(self, mixings: list[Tensor], first: int, stop: Callable[[Scores], bool] | None = None) -> Scores:
        """There is no network."""
        raise StateError("a selection that trains nothing has no network to score")

    def spent(self) -> float:
        """Nothing."""
        return 0.0

    def snapshot(self) -> None:
        """There is no network."""
        raise StateError("a selection that trains nothing has no network to keep")

    def restore(self) -> None:
        """There is no network."""
        raise StateError("a selection that trains nothing has no network to put back")


def largest_op(tau: Tensor, edge: int) -> int:
    """The candidate with the largest τ on an edge, the first of equal ones."""
    return int(tau[edge].argmax())


def largest_edge(tau: Tensor, edges: tuple[int, ...]) -> int:
    """Of `edges` the one whose largest softmax weight is largest, the first of equal ones."""
    best = torch.softmax(tau, dim=-1).max(dim=-1).values.tolist()
    return max(edges, key=lambda edge: (best[edge], -edge))
