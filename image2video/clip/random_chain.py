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


def refuse_cells(chain: Genotype, who: str) -> None:
    """Raise `InputError` for a candidate with a magnitude in cells; `who` cannot have one, as in `"searches are"`."""
    if chain.has_cells:
        raise InputError(
            f"{who} made of candidates that move maps of every size alike, got {str(chain)!r:.80}, which counts cells; "
            "give fractions of the width and height, as in 'translate_x(0.1)'"
        )


@dataclass(frozen=True)
class ChainLaw:
    """How random chains are drawn: those of a cell in which every node keeps one incoming edge, all uniform.

    The law is that of `image2video.search.random_genotype`: a walk from the last node back to an input, each time over
    an edge from any earlier node, with a candidate on every edge passed.

    Attributes:
        candidates: what an edge may hold.
        inputs: the number of inputs of the cell.
        nodes: the number of nodes after them.

    Raises:
        InputError: no candidate, one with a magnitude in cells, or a count below 1.
        InputTypeError: candidates that are no sequence.
    """

    candidates: tuple[Genotype, ...]
    inputs: int = 1
    nodes: int = 4

    def __post_init__(self) -> None:
        if isinstance(self.candidates, str) or not isinstance(self.candidates, Sequence):
            raise InputTypeError(f"candidates must be a tuple of genotypes or texts, got {self.candidates!r:.80}")
        if not self.candidates:
            raise InputError("random chains need at least one candidate, such as 'rotate(10)'; got none")
        for what, value in (("inputs", self.inputs), ("nodes", self.nodes)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{what} must be an integer of at least 1, got {value!r}")
        chains = tuple(Genotype.coerce(candidate).with_provenance(None) for candidate in self.candidates)
        for chain in chains:
            refuse_cells(chain, "random chains are")
        object.__setattr__(self, "candidates", chains)

    @classmethod
    def of(cls, space: ChainLaw | ChainSpace | Sequence[Genotype | str]) -> ChainLaw:
        """Return the law of a search space, or of a sequence of candidates, of which each chain is one."""
        if isinstance(space, ChainLaw):
            return space
        if isinstance(space, Sequence) and not isinstance(space, str):
            return cls(tuple(Genotype.coerce(candidate) for candidate in space), nodes=1)
        if isinstance(space, str) or not hasattr(space, "candidates"):
            raise InputTypeError(
                f"random chains need a search space or a list of candidates, got {space!r:.80}; "
                "get_space(NAME) gives a registered space"
            )
        return cls(space.candidates, space.inputs, space.nodes)

    def check_steps(self, steps: Sequence[float]) -> None:
        """Raise `InputError` where a chain that can be drawn cannot be inverted in numbers at one of these powers."""
        # Scales are most extreme in a chain that holds one candidate as often as it can.
        for candidate in self.candidates:
            text = " > ".join([str(candidate)] * self.nodes)
            check_invertible(candidate.geometric.chain * self.nodes, steps, text)

    def draw(self, generator: torch.Generator) -> Genotype:
        """Draw a random chain."""
        node = self.inputs + self.nodes - 1
        passed: list[Genotype] = []
        while node >= self.inputs:
            candidate = int(torch.randint(len(self.candidates), (), generator=generator))
            passed.append(self.candidates[candidate])
            node = int(torch.randint(node, (), generator=generator))
        # The walk goes from the last node to an input, images go the other way.
        return Genotype(tuple(transform for candidate in reversed(passed) for transform in candidate.chain))
