"""The size of a network that a check has built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Network:
    """The size of an arm's network.

    Attributes:
        input_size: (C, H, W) of its images.
        classes: how many it tells apart.
        sites: how many fusions it holds.
        parameters: how many there are.
        macs: multiply-accumulates of one image, all frames of its clip, counted as `measure_cost` counts them.
        steps: those of its training where a mmsegmentation config counts them, None where epochs do.

    """

    input_size: tuple[int, int, int]
    classes: int
    sites: int
    parameters: int
    macs: float
    steps: int | None = None


def call_once(model: nn.Module, input_size: tuple[int, int, int], **options: Any) -> tuple[Tensor, int, float]:
    """What a model on the meta device gives for one image, its parameters, and its multiply-accumulates."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        out = model(torch.empty(1, *input_size, device="meta"), **options)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return out, parameters, counter.get_total_flops() / 2
