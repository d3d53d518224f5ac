"""The settings of a search, and how they are checked and written down."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from image2video.errors import InputError
from image2video.geometry import check_frames
from image2video.sampling import INTERPOLATIONS, PADDINGS

CRITERIA = ("accuracy", "loss")
PRECISIONS = ("no", "fp16", "bf16")
DEVICES = ("auto", "cpu")


@dataclass(frozen=True)
class SearchConfig:
    """The settings of a search; where no origin is named, the default is ours.

    Args:
        space: name of a registered space (default: `affine5`, and `gentle` for `fixed_weights`).
        selection: `perturbation` (paper), `argmax`, `random`, `frozen` (τ is never trained, then perturbation) or
            `fixed_weights` (a trained model stays as it is; chains are ranked).
        T: frames of the clip (paper).
        fusion: how frames mix: `gsf` (paper), `tsm`, `gsm`, `conv3d`, `none`; not used by `fixed_weights`.
        residual: start as the average of the bare backbone over the frames.
        epochs: epochs over the training half (50 in the authors' code).
        warmup_epochs: epochs at the start in which τ stays as it is.
        batch_size: images per step, over all processes together (64 in the authors' code).
        validation_share: the part of the images that trains τ and selects; the rest trains the network (DARTS: half).
        validation_images: at most so many images per held-out score (default: all of the validation part).
        lr: learning rate of the weights at the start; cosine to `lr_min` (0.025 to 0.001: DARTS).
        lr_min: learning rate at the end.
        momentum: of SGD (DARTS).
        weight_decay: of the weights (DARTS); biases, norms and scales take none.
        grad_clip: largest norm of the weights' gradient (DARTS); 0 is no limit.
        tau_lr: learning rate of τ, Adam (DARTS).
        tau_betas: betas of Adam (DARTS).
        tau_weight_decay: weight decay of τ (DARTS).
        tune_epochs: epochs of tuning after each decided edge; cosine from `lr` to `lr_min` over all of them (DARTS-PT).
        criterion: what a removal is judged by: `accuracy` (paper; the loss breaks ties) or `loss`.
        renormalise: whether masking scales the other weights up (DARTS-PT does not).
        candidates: chains that `fixed_weights` ranks.
        first_images: images of the first round of `fixed_weights`.
        augment: crop and flip of the data in training steps.
        padding: what lies outside the image: `zeros`, `border` or `reflection`.
        interpolation: how frames are sampled: `bilinear`, `nearest` or `bicubic`.
        device: `auto` or `cpu`, where the search makes its own accelerator.
        precision: mixed precision where the search makes its own accelerator: `no`, `fp16` or `bf16`.
        channels_last: memory layout of network and frames.
        seed: of every random draw.

    """

    space: str | None = None
    selection: str = "perturbation"
    T: int = 5
    fusion: str = "gsf"
    residual: bool = True
    epochs: int = 50
    warmup_epochs: int = 0
    batch_size: int = 64
    validation_share: float = 0.5
    validation_images: int | None = None
    lr: float = 0.025
    lr_min: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 3e-4
    grad_clip: float = 5.0
    tau_lr: float = 3e-4
    tau_betas: tuple[float, float] = (0.5, 0.999)
    tau_weight_decay: float = 1e-3
    tune_epochs: int = 1
    criterion: str = "accuracy"
    renormalise: bool = False
    candidates: int = 64
    first_images: int = 128
    augment: bool = True
    padding: str = "zeros"
    interpolation: str = "bilinear"
    device: str = "auto"
    precision: str = "no"
    channels_last: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_frames(self.T)
        _check_counts(self)
        for what, value, choices in (
            ("criterion", self.criterion, CRITERIA),
            ("padding", self.padding, PADDINGS),
            ("interpolation", self.interpolation, INTERPOLATIONS),
            ("precision", self.precision, PRECISIONS),
            ("device", self.device, DEVICES),
        ):
            if value not in choices:
                raise InputError(f"unknown {what} {value!r}; choose one of {', '.join(choices)}")
        for name in ("momentum", "weight_decay", "grad_clip", "tau_lr", "tau_weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} must be a finite number of at least 0, got {getattr(self, name)}")
        if not 0 < self.validation_share < 1:
            raise InputError(f"validation_share must lie between 0 and 1, got {self.validation_share}")
        if not 0 <= self.lr_min <= self.lr < math.inf:
            raise InputError(f"the learning rate must fall: 0 <= lr_min <= lr, got lr={self.lr}, lr_min={self.lr_min}")

    @property
    def space_name(self) -> str:
        """The name of the space, the default filled in."""
        return self.space or ("gentle" if self.selection == "fixed_weights" else "affine5")

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        return {**asdict(self), "tau_betas": list(self.tau_betas)}


def _check_counts(config: SearchConfig) -> None:
    least = {"epochs": 0, "warmup_epochs": 0, "tune_epochs": 0, "seed": 0}
    least |= {"batch_size": 1, "candidates": 1, "first_images": 1}
    for name, low in least.items():
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise InputError(f"{name} must be an integer of at least {low}, got {value!r}")
    if config.validation_images is not None and config.validation_images < 1:
        raise InputError(f"validation_images must be at least 1 or None, got {config.validation_images}")
    if config.T < 2:
        raise InputError(f"a search needs clips of at least 2 frames, got T={config.T}")
