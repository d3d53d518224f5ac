"""What a recipe means for a network: its learning rates, its parameter groups and its precision."""

from __future__ import annotations

import math

import torch
from torch import nn

from image2video.settings.training import TrainConfig
from image2video.wrap.param_groups import param_groups


def lr_factor(step: int, total_steps: int, warmup_steps: int, min_ratio: float) -> float:
    """Give the learning rate of a step over the peak: linear warm-up, then half a cosine.

    The first step of a warm-up of n has 1/n, so no step is wasted at zero.

    Args:
        step: its number, from 0.
        total_steps: of the whole training.
        warmup_steps: of the warm-up.
        min_ratio: where the cosine ends.

    Returns:
        The factor, 0 … 1.

    """
    warmup_steps = min(warmup_steps, total_steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return min_ratio + (1 - min_ratio) * 0.5 * (1 + math.cos(math.pi * progress))


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Make the optimizer of a recipe, over `param_groups(model, …)`; raises what that raises.

    Args:
        model: whose parameters are trained.
        config: the recipe.

    Returns:
        SGD or AdamW; the peak learning rate of a group is its `peak_lr`.

    """
    groups = param_groups(model, config.peak_lr, fusion_lr_mult=config.fusion_lr_mult, weight_decay=config.decay)
    for group in groups:
        group["peak_lr"] = group["lr"]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.peak_lr)
    return torch.optim.SGD(groups, lr=config.peak_lr, momentum=config.momentum, nesterov=config.momentum > 0)


def autocast_dtype(config: TrainConfig, device: torch.device) -> torch.dtype | None:
    """The type that `config.amp` means on this device: bfloat16, or None for full precision."""
    if config.amp == "no":
        return None
    if config.amp == "bf16":
        return torch.bfloat16
    fits = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if fits else None
