"""From choices on the edges to one chain of ops: the discretised cell, drawn at random or read from a search."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from image2video.clip.deep_clip import DeepClip
from image2video.clip.genotype import Genotype
from image2video.errors import InputError, StateError
from image2video.search.space.deep_space import AnySpace, DeepSpace
from image2video.search.space.space import SearchSpace


class LearnedCandidates(Protocol):
    """What `Decisions.genotype` reads of a cell."""

    def chosen_candidate(self, edge: int, candidate: int) -> Genotype:
        """A candidate with the magnitudes that an edge has learned."""
        ...


@dataclass
class Decisions:
    """What has been decided so far.

    Attributes:
        ops: the candidate of every decided edge.
        sources: the one incoming edge that a decided node keeps.
    """

    ops: dict[int, int] = field(default_factory=dict)
    sources: dict[int, int] = field(default_factory=dict)

    def path(self, space: SearchSpace) -> tuple[int, ...]:
        """The kept edges from an input to the last node, in that order.

        A node with one incoming edge needs no decision.

        Args:
            space: candidates and graph.

        Returns:
            The numbers of the edges.

        Raises:
            StateError: a node on the way is undecided.
        """
        node, path = space.num_nodes - 1, []
        while node >= space.inputs:
            incoming = space.incoming(node)
            edge = incoming[0] if len(incoming) == 1 else self.sources.get(node)
            if edge is None:
                raise StateError(
                    f"node {node} needs one of its {len(incoming)} incoming edges; put it into sources[{node}]"
                )
            path.append(edge)
            node = space.edges[edge][0]
        return tuple(reversed(path))

    def genotype(self, space: SearchSpace, cell: LearnedCandidates | None = None) -> Genotype:
        """The ops along the path, input to output.

        Args:
            space: candidates and graph.
            cell: where magnitudes come from that were learned.

        Returns:
            The chain, without provenance.

        Raises:
            StateError: something on the path is undecided.
        """
        path = self.path(space)
        undecided = [edge for edge in path if edge not in self.ops]
        if undecided:
            raise StateError(
                f"edge {space.edges[undecided[0]]} is on the path and needs an op; put one into ops[{undecided[0]}]"
            )
        chosen = [(edge, self.ops[edge]) for edge in path]
        chains = [space.candidates[op] if cell is None else cell.chosen_candidate(edge, op) for edge, op in chosen]
        return Genotype(tuple(transform for chain in chains for transform in chain.chain))

    def to_dict(self) -> dict[str, Any]:
        """The decisions for a checkpoint.

        Returns:
            Plain values.
        """
        return {"ops": dict(self.ops), "sources": dict(self.sources)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Decisions:
        """The decisions that `to_dict` gave.

        Args:
            record: what it gave.

        Returns:
            Equal decisions.
        """
        return cls(dict(record["ops"]), dict(record["sources"]))


def found_clip(decisions: Decisions, space: AnySpace, cell: LearnedCandidates | None = None) -> Genotype | DeepClip:
    """Read the chain of the cell, or the chains of the cells at several places.

    Args:
        decisions: what has been decided on all edges and nodes.
        space: candidates and graph.
        cell: where magnitudes come from that were learned.

    Returns:
        The genotype, or the clip at all places of the space; without provenance.

    Raises:
        StateError: something on a path is undecided.
    """
    if not isinstance(space, DeepSpace):
        return decisions.genotype(space, cell)
    sites = []
    for place, name in enumerate(space.places):
        there = None if cell is None else _AtPlace(cell, place * len(space.cell.edges))
        sites.append((name, decisions_at(decisions, space, place).genotype(space.cell, there)))
    return DeepClip(tuple(sites))


def found_path(decisions: Decisions, space: AnySpace) -> tuple[int, ...]:
    """List the edges that were kept from an input to the last node, place after place.

    Args:
        decisions: what has been decided on all nodes.
        space: candidates and graph.

    Returns:
        The numbers of the edges.

    Raises:
        StateError: a node on a path is undecided.
    """
    if not isinstance(space, DeepSpace):
        return decisions.path(space)
    edges = len(space.cell.edges)
    return tuple(
        place * edges + edge
        for place in range(len(space.places))
        for edge in decisions_at(decisions, space, place).path(space.cell)
    )


def decisions_at(decisions: Decisions, space: DeepSpace, place: int) -> Decisions:
    """The decisions at one place, by the numbers of edges and nodes in its cell.

    Args:
        decisions: of all places.
        space: candidates, graph and places.
        place: the number of the place.

    Returns:
        Those of the place alone.
    """
    ops = {space.place_of(edge): op for edge, op in decisions.ops.items()}
    sources = {space.place_of_node(node): space.place_of(edge)[1] for node, edge in decisions.sources.items()}
    return Decisions(
        {edge: op for (where, edge), op in ops.items() if where == place},
        {node: edge for (where, node), edge in sources.items() if where == place},
    )


@dataclass(frozen=True)
class _AtPlace:
    """The candidates of one place as its own cell numbers the edges."""

    cell: LearnedCandidates
    offset: int

    def chosen_candidate(self, edge: int, candidate: int) -> Genotype:
        return self.cell.chosen_candidate(self.offset + edge, candidate)


def random_decisions(space: AnySpace, generator: torch.Generator) -> Decisions:
    """A random candidate on every edge and a random incoming edge for every node, uniform and independent.

    Args:
        space: candidates and graph.
        generator: where the draws come from.

    Returns:
        A decision for every edge and every node.
    """

    # `clip.random_chain.ChainLaw` draws chains of the same law, but only the choices along their path, last node first.
    # Seeds of searches and published results rest on the draws here, those of augmented training on the draws there:
    # neither order can take the place of the other, and only this one gives a choice for the whole cell.
    def draw(count: int) -> int:
        return int(torch.randint(count, (), generator=generator))

    ops = {edge: draw(len(space.candidates)) for edge in range(len(space.edges))}
    sources = {}
    for node in range(space.inputs, space.num_nodes):
        incoming = space.incoming(node)
        sources[node] = incoming[draw(len(incoming))]
    return Decisions(ops, sources)


def random_genotype(space: SearchSpace, generator: torch.Generator) -> Genotype:
    """The genotype of a randomly discretised cell: the control that a search has to beat.

    Args:
        space: candidates and graph.
        generator: where the draws come from.

    Returns:
        The chain of `random_decisions`.

    Example:
        >>> from image2video.search import get_space
        >>> g = random_genotype(get_space("affine5"), torch.Generator().manual_seed(0))
    """
    return random_decisions(space, generator).genotype(space)


def random_share(space: SearchSpace, wanted: str | Callable[[Genotype], bool]) -> float:
    """The exact share of random genotypes that hold an op, or a candidate of another kind.

    Every node keeps a uniform incoming edge and every edge a uniform candidate, so the share of chains *without* it is
    q(j) = (1 − p) · mean over i < j of q(i), with q(input) = 1 and p the share of wanted candidates.

    Args:
        space: candidates and graph.
        wanted: the op's name, or a function that is true for the candidates in question.

    Returns:
        The share, 0 … 1.

    Raises:
        InputError: an op that no candidate holds.
    """
    holds = (lambda chain: any(t.op == wanted for t in chain.chain)) if isinstance(wanted, str) else wanted
    count = sum(bool(holds(candidate)) for candidate in space.candidates)
    if count == 0 and isinstance(wanted, str):
        raise InputError(f"no candidate of the space {space.name!r} holds the op {wanted!r}: {', '.join(space.labels)}")
    without = [1.0] * space.inputs
    for _ in range(space.nodes):
        without.append((1 - count / len(space.candidates)) * sum(without) / len(without))
    return 1 - without[-1]
