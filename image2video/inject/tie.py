"""A dependency of outputs on parameters they do not use, for processes that wait for every gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def tie(outputs: Any, parameters: Sequence[nn.Parameter]) -> Any:
    """Make every floating-point tensor in `outputs` depend on `parameters`, with equal values and without gradients.

    DistributedDataParallel counts a parameter as done when its node in the graph is executed, with a gradient or
    without one; afterwards its gradient is zeros. Adding zero times each parameter would do too, but not where one of
    them is infinite. Outputs pass as they are without gradients or without a process group.
    """
    if not (torch.is_grad_enabled() and torch.distributed.is_available() and torch.distributed.is_initialized()):
        return outputs
    parameters = [p for p in parameters if p.requires_grad]
    return _tied(outputs, parameters) if parameters else outputs


class _Tie(torch.autograd.Function):
    """A copy of a tensor that depends on parameters which get no gradient from it."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, *parameters: Tensor) -> Tensor:
        ctx.parameters = len(parameters)
        return tensor.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0], *(None for _ in range(ctx.parameters))


def _tied(value: Any, parameters: list[nn.Parameter]) -> Any:
    """Tie the tensors in nested tuples, lists and mappings."""
    if isinstance(value, Tensor):
        return _Tie.apply(value, *parameters) if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return type(value)((key, _tied(item, parameters)) for key, item in value.items())  # type: ignore[call-arg]
    if type(value) in (tuple, list):
        return type(value)(_tied(item, parameters) for item in value)
    return value
