"""Tensors in containers: their copies on the CPU, their means over processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor


def averaged(tensors: Sequence[Tensor], accelerator: Accelerator) -> list[Tensor]:
    """The means of these tensors over all processes, in one reduction."""
    if accelerator.num_processes == 1:
        return list(tensors)
    flat = accelerator.reduce(torch.cat([tensor.flatten() for tensor in tensors]), "mean")
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view_as(tensor).to(tensor.dtype) for part, tensor in zip(parts, tensors, strict=True)]


def on_cpu(value: Any) -> Any:
    """Copy containers and their tensors to the CPU; later changes do not reach the copy."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: on_cpu(item) for key, item in value.items()}
    return [on_cpu(item) for item in value] if isinstance(value, list) else value
