"""How a cell becomes one chain: the interface of the strategies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Protocol

from torch import Tensor

from image2video.search.score.scores import Scores
from image2video.search.space.space import SearchSpace
from image2video.search.state.config import SearchConfig
from image2video.search.state.state import SearchState
from image2video.search.state.units import Unit


class Measured(Protocol):
    """What a strategy sees of a running search."""

    space: SearchSpace
    config: SearchConfig
    state: SearchState

    def tau(self) -> Tensor:
        """τ as it is, on the CPU, without gradient."""
        ...

    def score(self, mixings: list[Tensor], first: int, stop: Callable[[Scores], bool] | None = None) -> Scores:
        """Held-out scores of the network under these mixing matrices, which agree on all edges into nodes < `first`.

        `stop` is asked after every batch whether the scores so far suffice.
        """
        ...

    def spent(self) -> float:
        """The share of the budget that is used; 1 and above is all of it, 0 where there is no budget."""
        ...

    def snapshot(self) -> None:
        """Keep network and optimiser as they are, for `restore`."""
        ...

    def restore(self) -> None:
        """Put network and optimiser back to the snapshot."""
        ...


class Selection(ABC):
    """How the cell is discretised. A strategy keeps nothing: what it decides goes into `run.state`.

    Attributes:
        name: what `SearchConfig.selection` calls it.
        trains: whether a network is trained.
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
        """Carry out a unit that is no training and no plain score."""
