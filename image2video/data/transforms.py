"""The transforms of image files: random resized crops for training, resize and centre crop for evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from image2video.data.augment import Augmentation
from image2video.data.image_file import check_depth


@dataclass(frozen=True)
class TrainTransform:
    """Random resized crop, mirror, policy, normalisation: of a PIL image or a tensor `(3, H, W)` in 0 … 1.

    The result is `(3, image_size, image_size)` float32. mean, std: per channel in 0 … 1; flip: mirror left-right with
    probability 1/2; policy: what else changes the image.
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool = True
    policy: Augmentation | None = None
    _steps: v2.Compose = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        flip = [v2.RandomHorizontalFlip()] if self.flip else []
        steps: list[Any] = [in_colour, v2.RandomResizedCrop(self.image_size, antialias=True), *flip, *_TO_PIXELS]
        normalised = _to_normalised(self.mean, self.std)
        if self.policy is None:
            steps += normalised
        else:
            apply = self.policy.build(self.mean, self.std)
            # A policy on pixels is defined for 8 bits.
            steps += [_TO_BYTES, apply, *normalised] if self.policy.on_pixels else [*normalised, apply]
        object.__setattr__(self, "_steps", v2.Compose(steps))

    def __call__(self, image: Any) -> Tensor:
        """The image as training sees it; draws from torch's global CPU generator."""
        return self._steps(image)


def in_colour(image: Any) -> Any:
    """The image with three channels; `InputError` refuses one of Pillow whose pixels would be clipped to one colour."""
    if isinstance(image, Image.Image):
        check_depth(image, "the image")
    return v2.functional.grayscale_to_rgb(image)


_TO_PIXELS = (v2.ToImage(), v2.ToPureTensor())
_TO_BYTES = v2.ToDtype(torch.uint8, scale=True)


def eval_transform(
    image_size: int, mean: tuple[float, ...], std: tuple[float, ...], *, crop_fraction: float = 0.875
) -> v2.Compose:
    """Resize the shorter side, centre crop, normalisation: of a PIL image or a tensor `(3, H, W)` in 0 … 1.

    The result is `(3, image_size, image_size)` float32.
    crop_fraction: image_size over the resized shorter side (0.875: 224 of 256).
    """
    resized = round(image_size / crop_fraction)
    return v2.Compose(
        [
            *(in_colour, v2.Resize(resized, antialias=True), v2.CenterCrop(image_size)),
            *_TO_PIXELS,
            *_to_normalised(mean, std),
        ]
    )


def _to_normalised(mean: tuple[float, ...], std: tuple[float, ...]) -> list[Any]:
    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))]
