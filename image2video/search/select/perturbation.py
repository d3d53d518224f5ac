"""Selection by perturbation: what hurts most when it is taken away stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from image2video.search.cell.mixing import mixing_matrix
from image2video.search.score.scores import Scores
from image2video.search.select.controls import largest_edge, largest_op
from image2video.search.select.edge_records import clear_gap, hurt_most, mean_record, record, tau_record
from image2video.search.select.removals import Removal, removals_record
from image2video.search.select.selection import Run, Selection, register_selection
from image2video.search.space.deep_space import AnySpace
from image2video.search.state.seeds import seeded
from image2video.search.state.units import Unit
from image2video.settings.search import RANKING, SearchConfig


@register_selection("perturbation")
class Perturbation(Selection):
    """Masks one op at a time and keeps the one whose removal hurts most (Wang et al., ICLR 2021; the paper's choice).

    Edges come in a seeded random order. On each, every candidate is masked in turn, and the network is scored on
    held-out images. What is to be measured is the op, not the weight that goes with it: the others are scaled up in its
    place (`config.renormalise`; not in the paper's sources), and norms take the statistics of the batch, which move no
    running ones (`config.score_statistics`; as in the sources). The candidate without which accuracy is lowest stays
    (the higher loss breaks ties; `config.criterion="loss"` looks at the loss first); τ and the network are tuned; then
    the next edge. At the end nodes come in a seeded random order: of a node's incoming edges the one whose removal
    hurts least goes, again and again until one is left, with tuning after each node.

    What an edge is judged by depends on the edges that were decided before it. With `config.orders` above 1 (ours)
    every edge is judged once in each of several random orders, each of which starts from the searched network; on every
    edge the candidate with the largest mean drop stays. The network of the last order is then tuned with what the means
    decide, and the topology follows.

    With `config.stop_early` (ours; off in the paper) a score ends once the first two parts are that many standard
    errors apart. What is left when the budget is spent is read from τ, as `Argmax` reads it.
    """

    unused = RANKING

    def units(self, space: AnySpace, config: SearchConfig) -> list[Unit]:
        """Epochs of search; a decision and its tuning per edge (in every order) and per node; a score."""
        units = [Unit("search", epoch) for epoch in range(config.epochs)]
        several = config.orders > 1
        for order in range(config.orders):
            if several:
                units.append(Unit("order", order))
            for place, edge in enumerate(edge_order(space, config.seed, order)):
                units += [Unit("edge", edge), *_tuning(place, config)]
        if several:
            units += [Unit("settle"), *_tuning(len(space.edges), config)]
        for place, node in enumerate(node_order(space, config.seed), start=len(space.edges) + several):
            units += [Unit("node", node), *_tuning(place, config)]
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
    unused = ("second_order", "learn_magnitudes", *RANKING)


def edge_order(space: AnySpace, seed: int, order: int = 0) -> list[int]:
    """The edges in the `order`-th of the random orders that a seed gives."""
    purpose = "edge order" if order == 0 else f"edge order {order}"
    edges: list[int] = torch.randperm(len(space.edges), generator=seeded(seed, purpose)).tolist()
    return edges


def node_order(space: AnySpace, seed: int) -> list[int]:
    """The nodes that have several incoming edges, in the random order that a seed gives."""
    nodes = [node for node in range(space.inputs, space.num_nodes) if len(space.incoming(node)) > 1]
    return [nodes[i] for i in torch.randperm(len(nodes), generator=seeded(seed, "node order")).tolist()]


def _tuning(place: int, config: SearchConfig) -> list[Unit]:
    """The tuning after the decision number `place` of an order."""
    first = place * config.tune_epochs
    return [Unit("tune", first + epoch) for epoch in range(config.tune_epochs)]


def _decide_edge(edge: int, run: Run) -> None:
    """Keep the candidate of an edge whose removal hurts most."""
    space, config, tau = run.space, run.config, run.tau()
    if run.spent() >= 1:
        entry = tau_record(largest_op(tau, edge))
    else:
        parts = [{"masked_op": (edge, candidate)} for candidate in range(len(space.candidates))]
        stop = clear_gap(config.criterion, config.stop_early)
        scores = _masked_scores(run, parts, space.edges[edge][1], stop)
        entry = record(scores, hurt_most(scores, config.criterion), config.criterion)
    run.state.edges.append({"edge": edge, **entry, "weights": torch.softmax(tau[edge], 0).tolist()})
    run.state.decisions.ops[edge] = entry["chosen"]


def _decide_node(node: int, run: Run) -> None:
    """Remove the incoming edge of a node whose removal hurts least, again and again until one is left."""
    config, incoming = run.config, run.space.incoming(node)
    stop = clear_gap(config.criterion, config.stop_early, last=True)
    left: list[int] = list(incoming)
    rounds: list[Removal] = []
    entry: dict[str, Any] = {"node": node, "edges": list(incoming), "rounds": rounds}
    run.state.nodes.append(entry)
    while len(left) > 1 and run.spent() < 1:
        parts = [{"masked_edge": edge, "removed": set(incoming) - set(left)} for edge in left]
        scores = _masked_scores(run, parts, node, stop)
        rounds.append(Removal(scores, tuple(left), left[hurt_most(scores, config.criterion)[-1]]))
        left.remove(rounds[-1].removed)
    if len(left) > 1:  # the budget is spent
        left = [largest_edge(run.tau(), tuple(left))]
        entry |= tau_record(incoming.index(left[0]))
    else:
        entry |= removals_record(rounds, incoming, config.criterion)
    entry["rounds"] = [removal.to_dict() for removal in rounds]
    run.state.decisions.sources[node] = left[0]


def _masked_scores(run: Run, parts: list[dict[str, Any]], first: int, stop: Callable[[Scores], bool] | None) -> Scores:
    """The scores of the unmasked cell and of the cell without each part.

    A part is what `mixing_matrix` is to mask; all of them end in the node `first`.
    """
    space, config, decisions, tau = run.space, run.config, run.state.decisions, run.tau()
    mixings = [mixing_matrix(tau, space, decisions, removed=parts[0].get("removed", ()))]
    for part in parts:
        mixings.append(mixing_matrix(tau, space, decisions, **part, renormalise=config.renormalise))
    return run.score(mixings, first, stop)


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
