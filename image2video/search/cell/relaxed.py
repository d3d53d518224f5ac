"""What every relaxed cell trains, whether it makes a clip at the image or at several places."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from image2video.search.cell.magnitudes import MagnitudeUnits
from image2video.search.cell.mixing import mixing_matrix
from image2video.search.space.deep_space import AnySpace


class Relaxed(nn.Module):
    """The parameters of a relaxed cell.

    Args:
        space: candidates and edges.
        units: what learned magnitudes stand for; None where they are fixed.
        places: how many places have magnitudes of their own.
        generator: draws τ's start, N(0, 0.001²) as in DARTS; without it τ starts at zero (equal weights).

    Attributes:
        tau: parameter `(edges, candidates)`.
        magnitudes: parameter `(rows, transforms)`; None where they are fixed.
    """

    def __init__(
        self, space: AnySpace, units: MagnitudeUnits | None, places: int, generator: torch.Generator | None
    ) -> None:
        super().__init__()
        self.space, self._units = space, units
        shape = (len(space.edges), len(space.candidates))
        start = torch.zeros(shape) if generator is None else 1e-3 * torch.randn(shape, generator=generator)
        self.tau = nn.Parameter(start)
        self.magnitudes: nn.Parameter | None = None
        if units is not None:
            self.magnitudes = nn.Parameter(units.start().repeat(places, 1))

    def mixing(self) -> Tensor:
        """The mixing matrix of τ as it is.

        Returns:
            `(edges, candidates)`; see `mixing_matrix`.
        """
        return mixing_matrix(self.tau, self.space)

    def outer_parameters(self) -> list[nn.Parameter]:
        """What the outer problem trains.

        Returns:
            τ, and the magnitudes where they are learned.
        """
        return [self.tau] if self.magnitudes is None else [self.tau, self.magnitudes]

    @torch.no_grad()
    def clamp_magnitudes_(self) -> None:
        """Project the magnitudes into their bounds, as after every step of their optimiser; nothing where fixed."""
        if self.magnitudes is not None and self._units is not None:
            self._units.clamp_(self.magnitudes)

    def candidate_magnitudes(self) -> list[list[list[float]]] | None:
        """The learned magnitudes in the ops' own units, for records.

        Returns:
            Per row and candidate those of its geometric transforms; rows are sources (the inputs first, as one) or
            edges, those of a place together. None where the magnitudes are fixed.
        """
        if self.magnitudes is None or self._units is None:
            return None
        candidates = range(len(self.space.candidates))
        return [[self._units.numbers(o, row) for o in candidates] for row in self.magnitudes.detach().tolist()]
