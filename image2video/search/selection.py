"""Strategies that turn the relaxed cell into one chain, behind one interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from image2video.errors import InputError, StateError
from image2video.search.config import SearchConfig
from image2video.search.measure import PairedScores
from image2video.search.mixing import mixing_matrix
from image2video.search.space import SearchSpace
from image2video.search.state import SearchState
from image2video.search.topology import random_decisions
from image2video.search.units import Unit


class Measured(Protocol):
    """What a strategy sees of a running search."""

    space: SearchSpace
    config: SearchConfig
    state: SearchState

    def tau(self) -> Tensor:
        """τ as it is, on the CPU, without gradient."""
        ...

    def score(self, mixings: list[Tensor], first: int) -> PairedScores:
        """Held-out scores of the network under these mixing matrices, which agree on all edges into nodes < `first`."""
        ...


class Drawn(Measured):
    """A run without a network, for strategies that measure nothing."""

    def __init__(self, space: SearchSpace, config: SearchConfig) -> None:
        self.space, self.config, self.state = space, config, SearchState()

    def tau(self) -> Tensor:
        """There is no τ."""
        raise StateError("a selection that trains nothing has no τ to read")

    def score(self, mixings: list[Tensor], first: int) -> PairedScores:
        """There is no network."""
        raise StateError("a selection that trains nothing has no network to score")


class Selection(ABC):
    """How the cell is discretised. A strategy keeps nothing: what it decides goes into `run.state`.

    Attributes:
        name: what `SearchConfig.selection` calls it.
        trains: whether the network is trained behind the relaxed cell.
        moves_tau: whether τ is trained.

    """

    name: ClassVar[str]
    trains: ClassVar[bool] = True
    moves_tau: ClassVar[bool] = True

    @abstractmethod
    def units(self, space: SearchSpace, config: SearchConfig) -> list[Unit]:
        """All units of work in order; the same for the same space and settings."""

    @abstractmethod
    def decide(self, unit: Unit, run: Measured) -> None:
        """Carry out an `edge`, `node` or `read` unit."""


class Perturbation(Selection):
    """Masks one op at a time and keeps the one whose removal hurts most (Wang et al., ICLR 2021; the paper's choice).

    Edges come in a seeded random order. On each, every candidate is masked in turn, without renormalising the others
    (`config.renormalise` does), and the network is scored on held-out images with running BatchNorm statistics. The
    candidate without which accuracy is lowest stays (the higher loss breaks ties; `config.criterion="loss"` looks at
    the loss first); the network is tuned; then the next edge. At the end every node keeps the incoming edge whose
    removal hurts most.
    """

    name = "perturbation"

    def units(self, space: SearchSpace, config: SearchConfig) -> list[Unit]:
        """Epochs of search; per edge a decision and its tuning; a decision per node; a score."""
        units = [Unit("search", epoch) for epoch in range(config.epochs)]
        tuned = 0
        for edge in torch.randperm(len(space.edges), generator=seeded(config.seed, "edge order")).tolist():
            units.append(Unit("edge", edge))
            units += [Unit("tune", tuned + epoch) for epoch in range(config.tune_epochs)]
            tuned += config.tune_epochs
        nodes = [n for n in range(space.inputs, space.num_nodes) if len(space.incoming(n)) > 1]
        return [*units, *(Unit("node", node) for node in nodes), Unit("score")]

    def decide(self, unit: Unit, run: Measured) -> None:
        """Decide one edge or one node."""
        if unit.kind == "edge":
            self._decide_edge(unit.index, run)
        else:
            self._decide_node(unit.index, run)

    def _decide_edge(self, edge: int, run: Measured) -> None:
        space, decisions, tau = run.space, run.state.decisions, run.tau()
        mixings = [mixing_matrix(tau, space, decisions)]
        for candidate in range(len(space.candidates)):
            masked = (edge, candidate)
            mixings.append(mixing_matrix(tau, space, decisions, masked_op=masked, renormalise=run.config.renormalise))
        scores = run.score(mixings, space.edges[edge][1])
        order = hurt_most(scores, run.config.criterion)
        run.state.edges.append({"edge": edge, **record(scores, order), "weights": torch.softmax(tau[edge], 0).tolist()})
        decisions.ops[edge] = order[0]

    def _decide_node(self, node: int, run: Measured) -> None:
        space, decisions, tau = run.space, run.state.decisions, run.tau()
        incoming = space.incoming(node)
        mixings = [mixing_matrix(tau, space, decisions)]
        for edge in incoming:
            mixings.append(mixing_matrix(tau, space, decisions, masked_edge=edge, renormalise=run.config.renormalise))
        scores = run.score(mixings, node)
        order = hurt_most(scores, run.config.criterion)
        run.state.nodes.append({"node": node, "edges": list(incoming), **record(scores, order)})
        decisions.sources[node] = incoming[order[0]]


class Frozen(Perturbation):
    """As `Perturbation`, but τ stays at its start: what does training τ add? (a control)."""

    name = "frozen"
    moves_tau = False


class Argmax(Selection):
    """Keeps the largest τ on every edge, and per node the edge whose largest weight is largest (DARTS; a control)."""

    name = "argmax"

    def units(self, space: SearchSpace, config: SearchConfig) -> list[Unit]:
        """Epochs of search, one reading, a score."""
        return [*(Unit("search", epoch) for epoch in range(config.epochs)), Unit("read"), Unit("score")]

    def decide(self, unit: Unit, run: Measured) -> None:
        """Read all edges and nodes from τ; the first of equal ones stays."""
        weights = torch.softmax(run.tau(), dim=-1)
        best = weights.max(dim=-1).values.tolist()
        decisions = run.state.decisions
        decisions.ops = dict(enumerate(weights.argmax(dim=-1).tolist()))
        for node in range(run.space.inputs, run.space.num_nodes):
            decisions.sources[node] = max(run.space.incoming(node), key=lambda e: (best[e], -e))


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


SELECTIONS: dict[str, type[Selection]] = {s.name: s for s in (Perturbation, Frozen, Argmax, Random)}


def get_selection(name: str) -> Selection:
    """The strategy of that name; raises `InputError` with the list of all."""
    if name not in SELECTIONS:
        raise InputError(f"unknown selection {name!r}; choose one of {', '.join((*SELECTIONS, 'fixed_weights'))}")
    return SELECTIONS[name]()


def hurt_most(scores: PairedScores, criterion: str) -> list[int]:
    """The masked parts (counted from 0; variant 0 is the unmasked cell) by how much their removal hurts, most first."""
    parts = range(len(scores.correct) - 1)

    def key(part: int) -> tuple[float, float, int]:
        accuracy, loss = float(scores.correct[part + 1]), -float(scores.loss[part + 1])
        return (accuracy, loss, part) if criterion == "accuracy" else (loss, accuracy, part)

    return sorted(parts, key=key)


def record(scores: PairedScores, order: list[int]) -> dict[str, Any]:
    """The scores of one decision as plain values: masked parts in their own order, gap of the first two with error."""
    parts = range(1, len(scores.correct))
    gap = (None, None) if len(order) < 2 else scores.accuracy_gap(order[1] + 1, order[0] + 1)
    loss_gap = (None, None) if len(order) < 2 else scores.loss_gap(order[0] + 1, order[1] + 1)
    return {
        "images": scores.n,
        "accuracy": scores.accuracy(0),
        "loss": scores.mean_loss(0),
        "masked_accuracy": [scores.accuracy(v) for v in parts],
        "masked_loss": [scores.mean_loss(v) for v in parts],
        "chosen": order[0],
        "gap": gap[0],
        "gap_error": gap[1],
        "loss_gap": loss_gap[0],
        "loss_gap_error": loss_gap[1],
    }


def seeded(seed: int, purpose: str) -> torch.Generator:
    """A generator for one purpose of a search: different purposes never share a stream."""
    return torch.Generator().manual_seed(derived_seed(seed, purpose))


def derived_seed(seed: int, purpose: str) -> int:
    """A seed that depends on (seed, purpose) alone."""
    mixed = seed & 0xFFFFFFFFFFFF
    for byte in purpose.encode():
        mixed = (mixed * 1_000_003 ^ byte) & 0x7FFFFFFFFFFFFFFF
    return mixed
