"""The path that a step of `single_path` takes through the cell."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from image2video.search.cell.mixing import single_path_mixing
from image2video.search.cell.topology import Decisions
from image2video.search.space.deep_space import AnySpace


@dataclass(frozen=True)
class Draw:
    """Which path a step of `single_path` takes: drawn anew from `seed` whenever it is asked for, so always the same."""

    temperature: float
    seed: int
    decisions: Decisions | None = None

    def path(self, tau: Tensor, space: AnySpace) -> tuple[Tensor, tuple[int, ...]]:
        """The mixing matrix and the candidates that it holds; see `single_path_mixing`."""
        generator = torch.Generator().manual_seed(self.seed)
        return single_path_mixing(tau, space, self.temperature, generator, self.decisions)
