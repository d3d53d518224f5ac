"""The recipe of a training, and how it is checked."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from image2video.errors import InputError, InputTypeError

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
