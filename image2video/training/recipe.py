"""How a network is trained: one frozen configuration, its learning rates and its parameter groups."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn

from image2video.errors import InputError, InputTypeError
from image2video.wrap.param_groups import param_groups

FINE_TUNING = 0.1
"""The default learning rate for trained weights over that for random ones: the full one would undo what they know."""
_DEFAULT_LR = {"sgd": 0.1, "adamw": 1e-3}
_DEFAULT_WEIGHT_DECAY = {"sgd": 5e-4, "adamw": 5e-2}


@dataclass(frozen=True)
class TrainConfig:
    """The recipe of `train`; every default is ours, a usual one for images of CIFAR's size.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per step, over all processes.
        optimizer: `sgd` (momentum, Nesterov) or `adamw` (betas 0.9, 0.999).
        lr: peak learning rate at this batch size, it is not scaled (default: 0.1 for sgd, 0.001 for adamw; on the
            command line a tenth of that for trained weights).
        weight_decay: of matrices and kernels; norms, biases, and what `model.no_weight_decay()` names have none
            (default: 5e-4 for sgd, 0.05 for adamw).
        momentum: of sgd.
        warmup_epochs: linear warm-up from 0; then one cosine down to lr · min_lr_ratio.
        min_lr_ratio: the last learning rate over the peak, 0 … 1.
        label_smoothing: 0 … 1.
        ema: decay of the averaged weights, such as 0.999; 0 for none. They are then what is evaluated and saved.
        amp: `auto` (bf16 on a GPU that has it), `no` or `bf16`.
        channels_last: memory format of weights and images.
        compile: compile the training step's forward pass with torch.compile.
        clip_grad: largest norm of the gradient; 0 for no limit.
        fusion_lr_mult: learning rate of the fusion parameters over that of the backbone.
        crop_flip: the data set's own crops and flips; False trains on the images as they are.
        seed: of batches, augmentation and dropout.
        device: `auto`, `cpu`, `cuda` or `mps`.
    """

    epochs: int = 30
    batch_size: int = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float | None = None
    weight_decay: float | None = None
    momentum: float = 0.9
    warmup_epochs: float = 1.0
    min_lr_ratio: float = 0.0
    label_smoothing: float = 0.1
    ema: float = 0.0
    amp: Literal["auto", "no", "bf16"] = "auto"
    channels_last: bool = True
    compile: bool = False
    clip_grad: float = 0.0
    fusion_lr_mult: float = 1.0
    crop_flip: bool = True
    seed: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"

    def __post_init__(self) -> None:
        for name, low in (("epochs", 1), ("batch_size", 1), ("seed", 0)):
            _whole(name, getattr(self, name), low)
        _choice("optimizer", self.optimizer, tuple(_DEFAULT_LR))
        _choice("amp", self.amp, ("auto", "no", "bf16"))
        _choice("device", self.device, ("auto", "cpu", "cuda", "mps"))
        for name in ("weight_decay", "lr"):
            if getattr(self, name) is not None:
                _within(name, getattr(self, name), 0, math.inf)
        for name in ("momentum", "ema"):
            _within(name, getattr(self, name), 0, 1, high_excluded=True)
        for name in ("min_lr_ratio", "label_smoothing"):
            _within(name, getattr(self, name), 0, 1)
        for name in ("warmup_epochs", "clip_grad", "fusion_lr_mult"):
            _within(name, getattr(self, name), 0, math.inf)

    @property
    def peak_lr(self) -> float:
        """The learning rate after warm-up."""
        return _DEFAULT_LR[self.optimizer] if self.lr is None else self.lr

    @property
    def decay(self) -> float:
        """The weight decay of matrices and kernels."""
        return _DEFAULT_WEIGHT_DECAY[self.optimizer] if self.weight_decay is None else self.weight_decay

    def to_dict(self) -> dict[str, Any]:
        """Give all fields by name.

        Returns:
            The fields, ready for JSON or YAML.

        """
        return asdict(self)


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


def _within(name: str, value: float, low: float, high: float, *, high_excluded: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputTypeError(f"{name}={value!r:.80}: it must be a number, got a {type(value).__name__}")
    if not (low <= value <= high and value < math.inf) or (high_excluded and value == high):
        if high == math.inf:
            span = f"{'finite and ' if value == math.inf else ''}at least {low}"
        else:
            span = f"from {low} to {high}{' (excluded)' if high_excluded else ''}"
        raise InputError(f"{name}={value!r}: it must be {span}")


def _whole(name: str, value: int, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputTypeError(f"{name}={value!r}: it must be a whole number of at least {low}")
    _within(name, value, low, math.inf)


def _choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise InputError(f"{name}={value!r:.80}: it must be one of {', '.join(allowed)}")
