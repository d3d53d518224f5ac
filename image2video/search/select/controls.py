"""Selections that measure nothing: the controls that a search has to beat."""

from __future__ import annotations

import torch
from torch import Tensor

from image2video.search.cell.topology import random_decisions
from image2video.search.select.selection import Run, Selection, register_selection
from image2video.search.space.deep_space import AnySpace
from image2video.search.state.seeds import seeded
from image2video.search.state.units import Unit
from image2video.settings.search import RANKING, SearchConfig


@register_selection("argmax")
class Argmax(Selection):
    """Keeps the largest τ on every edge, and per node the edge whose largest weight is largest (DARTS; a control)."""

    unused = ("renormalise", "orders", "stop_early", *RANKING)

    def units(self, space: AnySpace, config: SearchConfig) -> list[Unit]:
        """Epochs of search, one reading, a score."""
        return [*(Unit("search", epoch) for epoch in range(config.epochs)), Unit("read"), Unit("score")]

    def decide(self, unit: Unit, run: Run) -> None:
        """Read all edges and nodes from τ; the first of equal ones stays."""
        tau, decisions = run.tau(), run.state.decisions
        decisions.ops = {edge: largest_op(tau, edge) for edge in range(len(run.space.edges))}
        for node in range(run.space.inputs, run.space.num_nodes):
            decisions.sources[node] = largest_edge(tau, run.space.incoming(node))


@register_selection("random")
class Random(Selection):
    """Draws the cell: no network, no training (the control that a search has to beat)."""

    trains = False
    moves_tau = False
    unused = (
        *("second_order", "learn_magnitudes", "relaxation"),
        *("renormalise", "score_statistics", "score_batch_size", "orders", "stop_early", "criterion"),
        *RANKING,
    )

    def units(self, space: AnySpace, config: SearchConfig) -> list[Unit]:
        """One draw."""
        return [Unit("read")]

    def decide(self, unit: Unit, run: Run) -> None:
        """Draw a candidate for every edge and an edge for every node."""
        run.state.decisions = random_decisions(run.space, seeded(run.config.seed, "random"))


def largest_op(tau: Tensor, edge: int) -> int:
    """The candidate with the largest τ on an edge, the first of equal ones."""
    return int(tau[edge].argmax())


def largest_edge(tau: Tensor, edges: tuple[int, ...]) -> int:
    """Of `edges` the one whose largest softmax weight is largest, the first of equal ones."""
    best = torch.softmax(tau, dim=-1).max(dim=-1).values.tolist()
    return max(edges, key=lambda edge: (best[edge], -edge))
