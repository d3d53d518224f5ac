"""An exponential moving average of a model's weights."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Ema:
    """A copy of the model whose floating tensors follow it: average ← d · average + (1 − d) · model.

    d = min(decay, (1 + n) / (10 + n)) at update n, so that short runs are not averaged with their random start.
    Buffers are averaged too (BatchNorm's statistics belong to the averaged weights); whole numbers are copied.
    """

    # torch.optim.swa_utils.AveragedModel would be another average: its first update copies the model, where ours moves
    # by 0.9 of the way. Started past that, it gives the count to its averaging function as a tensor on the model's
    # device, and to read it for the decay waits for a GPU at every step. It also averages buffers that no state dict
    # holds, such as tables of positions.
    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards `model` by one step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        current = model.state_dict()
        for name, average in self.module.state_dict().items():
            if average.is_floating_point():
                average.lerp_(current[name].to(average.dtype), 1 - decay)
            else:
                average.copy_(current[name])
