"""How random chains are drawn from a search space: the law that every random control shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from image2video.clip.genotype import Genotype
from image2video.clip.transform import check_invertible
from image2video.errors import InputError, InputTypeError


class ChainSpace(Protocol):
    """What is read of a `SearchSpace`: the candidates of every edge and the size of the cell."""

    @property
    def candidates(self) -> tuple[Genotype, ...]:
        """What an edge may hold."""
        ...

    @property
    def inputs(self) -> int:
        """The number of inputs."""
        ...

    @property
    def nodes(self) -> int:
        """The number of nodes after them."""
        ...

    @property
    def schedule(self) -> str:
        """The power of each frame."""
        ...


@dataclass(frozen=True)
class ChainLaw:
    """How random chains are drawn: those of a cell in which every node keeps one incoming edge, all uniform.

    The law is that of `image2video.search.random_genotype`: from the last of `nodes` nodes back to one of `inputs`
    inputs, each time over an edge from any earlier node, with a candidate on every edge passed.
    """

    candidates: tuple[Genotype, ...]
    inputs: int = 1
    nodes: int = 4

    def __post_init__(self) -> None:
        if isinstance(self.candidates, str) or not isinstance(self.candidates, Sequence):
            raise InputTypeError(f"candidates are a tuple of genotypes or texts, got {self.candidates!r:.80}")
        if not self.candidates:
            raise InputError("random chains need at least one candidate, such as 'rotate(10)'")
        for what, value in (("inputs", self.inputs), ("nodes", self.nodes)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{what} must be an integer of at least 1, got {value!r}")
        chains = tuple(Genotype.coerce(candidate).with_provenance(None) for candidate in self.candidates)
        object.__setattr__(self, "candidates", chains)

    @classmethod
    def of(cls, space: ChainLaw | ChainSpace | Sequence[Genotype | str]) -> ChainLaw:
        """The law of a search space; a sequence of candidates is a cell of one edge: each chain is one of them."""
        if isinstance(space, ChainLaw):
            return space
        if isinstance(space, Sequence) and not isinstance(space, str):
            return cls(tuple(Genotype.coerce(candidate) for candidate in space), nodes=1)
        if isinstance(space, str) or not hasattr(space, "candidates"):
            raise InputTypeError(
                f"random chains are drawn from a search space or a list of candidates, got {space!r:.80}; "
                "get_space(NAME) gives a registered space"
            )
        return cls(space.candidates, space.inputs, space.nodes)

    def check_steps(self, steps: Sequence[float]) -> None:
        """Raise `InputError` where a chain that can be drawn cannot be inverted in numbers at one of these powers.

        The chains tried hold one candidate as often as a chain can: there scales are most extreme.
        """
        for candidate in self.candidates:
            text = " > ".join([str(candidate)] * self.nodes)
            check_invertible(candidate.geometric.chain * self.nodes, steps, text)

    def draw(self, generator: torch.Generator) -> Genotype:
        """A random chain."""
        node, passed = self.inputs + self.nodes - 1, []
        while node >= self.inputs:
            passed.append(self.candidates[int(torch.randint(len(self.candidates), (), generator=generator))])
            node = int(torch.randint(node, (), generator=generator))
        return Genotype(tuple(transform for candidate in reversed(passed) for transform in candidate.chain))
