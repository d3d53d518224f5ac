"""Selection by perturbation: what hurts most when it is taken away stays."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from image2video.search.cell.mixing import mixing_matrix
from image2video.search.select.controls import largest_edge, largest_op
from image2video.search.select.edge_records import clear_gap, hurt_most, mean_record, record, tau_record
from image2video.search.select.selection import Run, Selection, register_selection
from image2video.search.space.space import SearchSpace
from image2video.search.state.config import SearchConfig
from image2video.search.state.seeds import seeded
from image2video.search.state.units import Unit


@register_selection("perturbation")
class Perturbation(Selection):
    """Masks one op at a time and keeps the one whose removal hurts most (Wang et al., ICLR 2021; the paper's choice).

    Edges come in a seeded random order. On each, every candidate is masked in turn, without renormalising the others
    (`config.renormalise` does), and the network is scored on held-out images with running BatchNorm statistics. The
    candidate without which accuracy is lowest stays (the higher loss breaks ties; `config.criterion="loss"` looks at
    the loss first); the network is tuned; then the next edge. At the end every node keeps the incoming edge whose
    removal hurts most.

    What an edge is judged by depends on the edges that were decided before it. With `config.orders` above 1 (ours)
    every edge is judged once in each of several random orders, each of which starts from the searched network; on every
    edge the candidate with the largest mean drop stays. The network of the last order is then tuned with what the means
    decide, and the topology follows.

    With `config.stop_early` (ours; off in the paper) a score ends once the first two parts are that many standard
    errors apart. What is left when the budget is spent is read from τ, as `Argmax` reads it.
    """

    def units(self, space: SearchSpace, config: SearchConfig) -> list[Unit]:
        """Epochs of search; per edge a decision and its tuning (in every order); a decision per node; a score."""
        units = [Unit("search", epoch) for epoch in range(config.epochs)]
        several = config.orders > 1
        for order in range(config.orders):
            if several:
                units.append(Unit("order", order))
            for place, edge in enumerate(edge_order(space, config.seed, order)):
                units += [Unit("edge", edge), *_tuning(place, config)]
        if several:
            units += [Unit("settle"), *_tuning(len(space.edges), config)]
        for node in range(space.inputs, space.num_nodes):
            if len(space.incoming(node)) > 1:
                units.append(Unit("node", node))
        return [*units, Unit("score")]

    def decide(self, unit: Unit, run: Run) -> None:
        """Decide one edge or one node, start an order, or settle all edges."""
        if unit.kind == "order":
            _start_order(unit.index, run)
        elif unit.kind == "edge":
            _decide_edge(unit.index, run)
        elif unit.kind == "settle":
            _settle(run)
        else:
            _decide_node(unit.index, run)


@register_selection("frozen")
class Frozen(Perturbation):
    """As `Perturbation`, but τ stays at its start: what does training τ add? (a control).

    What a budget leaves to τ is then as good as drawn.
    """

    moves_tau = False
    unused = ("second_order", "learn_magnitudes")


def edge_order(space: SearchSpace, seed: int, order: int = 0) -> list[int]:
    """The edges in the `order`-th of the random orders that a seed gives."""
    purpose = "edge order" if order == 0 else f"edge order {order}"
    edges: list[int] = torch.randperm(len(space.edges), generator=seeded(seed, purpose)).tolist()
    return edges


def _tuning(place: int, config: SearchConfig) -> list[Unit]:
    """The tuning after the decision number `place` of an order."""
    first = place * config.tune_epochs
    return [Unit("tune", first + epoch) for epoch in range(config.tune_epochs)]


def _decide_edge(edge: int, run: Run) -> None:
    """Keep the candidate of an edge whose removal hurts most."""
    space, tau = run.space, run.tau()
    parts = [{"masked_op": (edge, candidate)} for candidate in range(len(space.candidates))]
    entry = _judge(run, tau, parts, space.edges[edge][1])
    if entry is None:
        entry = tau_record(largest_op(tau, edge))
    run.state.edges.append({"edge": edge, **entry, "weights": torch.softmax(tau[edge], 0).tolist()})
    run.state.decisions.ops[edge] = entry["chosen"]


def _decide_node(node: int, run: Run) -> None:
    """Keep the incoming edge of a node whose removal hurts most."""
    tau, incoming = run.tau(), run.space.incoming(node)
    entry = _judge(run, tau, [{"masked_edge": edge} for edge in incoming], node)
    if entry is None:
        entry = tau_record(incoming.index(largest_edge(tau, incoming)))
    run.state.nodes.append({"node": node, "edges": list(incoming), **entry})
    run.state.decisions.sources[node] = incoming[entry["chosen"]]


def _judge(run: Run, tau: Tensor, parts: list[dict[str, Any]], first: int) -> dict[str, Any] | None:
    """The record of the part whose removal hurts most; None where the budget is spent.

    A part is what `mixing_matrix` is to mask; all of them end in the node `first`.
    """
    if run.spent() >= 1:
        return None
    space, config, decisions = run.space, run.config, run.state.decisions
    mixings = [mixing_matrix(tau, space, decisions)]
    for part in parts:
        mixings.append(mixing_matrix(tau, space, decisions, **part, renormalise=config.renormalise))
    scores = run.score(mixings, first, clear_gap(config.criterion, config.stop_early))
    return record(scores, hurt_most(scores, config.criterion), config.criterion)


def _start_order(order: int, run: Run) -> None:
    """Begin an order with the searched network and no decision; keep the records of the order before."""
    if order == 0:
        run.snapshot()
        return
    run.restore()
    run.state.orders.append(run.state.edges)
    run.state.edges = []
    run.state.decisions.ops = {}


def _settle(run: Run) -> None:
    """Decide every edge by its means over the orders, or by τ where no order measured it."""
    state, tau = run.state, run.tau()
    state.orders.append(state.edges)
    state.edges, state.decisions.ops = [], {}
    for edge in range(len(run.space.edges)):
        found = [entry for records in state.orders for entry in records if entry["edge"] == edge]
        measured = [entry for entry in found if entry["decided_by"] == "scores"]
        entry = mean_record(measured, run.config.criterion) if measured else tau_record(largest_op(tau, edge))
        state.edges.append({"edge": edge, **entry, "weights": torch.softmax(tau[edge], 0).tolist()})
        state.decisions.ops[edge] = entry["chosen"]
