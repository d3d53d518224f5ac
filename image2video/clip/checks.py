"""Checks of arguments that several modules take."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from image2video.errors import InputError, InputTypeError


def check_frames(T: object) -> int:
    """Return the number of frames; `InputTypeError` for bools, floats and others, `InputError` below 1."""
    if isinstance(T, bool) or not isinstance(T, int):
        raise InputTypeError(f"T, the number of frames, must be an integer of at least 1, got {T!r}")
    if T < 1:
        raise InputError(f"T, the number of frames, must be at least 1, got {T}")
    return T


def check_choice(what: str, value: object, choices: Sequence[str]) -> str:
    """Return the value if it is one of the choices; otherwise `InputError` lists them."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"unknown {what} {value!r:.80}; choose one of {', '.join(choices)}")
    return value


def check_size(size: object, name: str) -> tuple[int, int]:
    """Return (height, width); `InputError` for anything else than two sizes of at least 1."""
    if not isinstance(size, tuple | list) or len(size) != 2 or min(size) < 1:
        raise InputError(f"{name} must be (height, width), both at least 1, got {size!r}")
    return size[0], size[1]


def check_images(images: object) -> None:
    """Raise `InputTypeError` for what is no floating-point tensor, `InputError` for other shapes than (B, C, H, W)."""
    if not isinstance(images, Tensor):
        raise InputTypeError(f"images must be a tensor (B, C, H, W), got {type(images).__name__}")
    if images.dtype == torch.uint8:
        raise InputTypeError(
            "images are uint8; convert them to float and normalise them as the backbone was trained, for example with "
            "torchvision.transforms.v2: Compose([ToDtype(torch.float32, scale=True), Normalize(mean, std)])"
        )
    if not images.is_floating_point():
        raise InputTypeError(f"images must be floating point (B, C, H, W), got {images.dtype}")
    if images.ndim != 4:
        raise InputError(f"images must have the shape (B, C, H, W), got {tuple(images.shape)}")
    if min(images.shape[-2:]) < 1:
        raise InputError(f"images must have at least one pixel, got the shape {tuple(images.shape)}")
