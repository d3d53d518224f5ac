"""The transforms of image files: random resized crops for training, resize and centre crop for evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torchvision.transforms import v2

from image2video.errors import InputError

AUTO_AUGMENTS: dict[str, Callable[[], Any]] = {
    "autoaugment": v2.AutoAugment,
    "randaugment": v2.RandAugment,
    "trivialaugment": v2.TrivialAugmentWide,
}


def train_transform(
    image_size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    flip: bool = True,
    auto_augment: str | None = None,
) -> v2.Compose:
    """PIL image → `(3, image_size, image_size)` float32: random resized crop, mirror, optional policy, normalisation.

    auto_augment: `None` or a key of `AUTO_AUGMENTS`. Raises `InputError` for another name.
    """
    steps: list[Any] = [v2.RGB(), v2.RandomResizedCrop(image_size, antialias=True)]
    if flip:
        steps.append(v2.RandomHorizontalFlip())
    if auto_augment is not None:
        if auto_augment not in AUTO_AUGMENTS:
            raise InputError(f"unknown auto_augment {auto_augment!r}; choose from {', '.join(sorted(AUTO_AUGMENTS))}")
        steps.append(AUTO_AUGMENTS[auto_augment]())
    return v2.Compose([*steps, *_to_normalised(mean, std)])


def eval_transform(
    image_size: int, mean: tuple[float, ...], std: tuple[float, ...], *, crop_fraction: float = 0.875
) -> v2.Compose:
    """PIL image → `(3, image_size, image_size)` float32: resize the shorter side, centre crop, normalisation.

    crop_fraction: image_size over the resized shorter side (0.875: 224 of 256).
    """
    resized = round(image_size / crop_fraction)
    return v2.Compose(
        [v2.RGB(), v2.Resize(resized, antialias=True), v2.CenterCrop(image_size), *_to_normalised(mean, std)]
    )


def _to_normalised(mean: tuple[float, ...], std: tuple[float, ...]) -> list[Any]:
    return [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))]
