"""What follows from the edges and candidates of a search space, whether it has one cell or several."""

from __future__ import annotations

import math
from typing import Protocol

from image2video.clip.genotype import Genotype

_WRITTEN_OUT = 10**20


class _HasEdges(Protocol):
    """What has edges, and candidates for each of them."""

    @property
    def candidates(self) -> tuple[Genotype, ...]: ...

    @property
    def edges(self) -> tuple[tuple[int, int], ...]: ...


class EdgeGraph:
    """A space whose edges each hold one of its candidates; it needs `edges` and `candidates`."""

    @property
    def size(self: _HasEdges) -> int:
        """The number of ways to put one candidate on every edge: 5^10 for `affine5`."""
        return len(self.candidates) ** len(self.edges)

    @property
    def size_text(self: _HasEdges) -> str:
        """The size as a power and a number: "5^10 = 9 765 625"; numbers of more than 20 digits are rounded."""
        return _power_text(len(self.candidates), len(self.edges))

    def incoming(self: _HasEdges, node: int) -> tuple[int, ...]:
        """The edges that end in a node.

        Args:
            node: its number.

        Returns:
            The numbers of the edges.
        """
        return tuple(index for index, (_, target) in enumerate(self.edges) if target == node)

    def outgoing(self: _HasEdges, node: int) -> tuple[int, ...]:
        """The edges that start from a node.

        Args:
            node: its number.

        Returns:
            The numbers of the edges.
        """
        return tuple(index for index, (source, _) in enumerate(self.edges) if source == node)


def _power_text(base: int, exponent: int) -> str:
    """A power and its value: "5^10 = 9 765 625"; values of more than 20 digits are rounded."""
    power, value = f"{base}^{exponent}", base**exponent
    if value < _WRITTEN_OUT:
        return f"{power} = {value:,}".replace(",", " ")
    digits = exponent * math.log10(base)
    return f"{power} ≈ {10 ** (digits % 1):.1f}e{int(digits)}"
