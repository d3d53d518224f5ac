"""The transforms of image files: random resized crops for training, resize and centre crop for evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from image2video.data.augment import Augmentation
from image2video.data.image_file import check_depth
from image2video.data.resizing import Resizing

if TYPE_CHECKING:
    # torchvision takes as long to import as torch, and images in memory need none of it: hence the imports below.
    from torchvision.transforms import v2


@dataclass(frozen=True)
class TrainTransform:
    """Random resized crop, mirror, policy, normalisation: of a PIL image or a tensor `(3, H, W)` in 0 … 1.

    The result is `(3, image_size, image_size)` float32. mean, std: per channel in 0 … 1; flip: mirror left-right with
    probability 1/2; policy: what else changes the image; interpolation: of the crops that are
    resized.
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool = True
    policy: Augmentation | None = None
    interpolation: str = "bilinear"
    _steps: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        from torchvision.transforms import v2

        flip = [v2.RandomHorizontalFlip()] if self.flip else []
        mode = Resizing(self.interpolation).mode
        crop = v2.RandomResizedCrop(self.image_size, interpolation=mode, antialias=True)
        steps: list[Any] = [in_colour, crop, *flip, *_to_pixels()]
        normalised = _to_normalised(self.mean, self.std)
        if self.policy is None:
            steps += normalised
        else:
            apply = self.policy.build(self.mean, self.std)
            # A policy on pixels is defined for 8 bits.
            steps += (
                [v2.ToDtype(torch.uint8, scale=True), apply, *normalised]
                if self.policy.on_pixels
                else [*normalised, apply]
            )
        object.__setattr__(self, "_steps", v2.Compose(steps))

    def __call__(self, image: Any) -> Tensor:
        """The image as training sees it; draws from torch's global CPU generator."""
        return self._steps(image)


def in_colour(image: Any) -> Any:
    """The image with three channels; `InputError` refuses one of Pillow whose pixels would be clipped to one colour."""
    if isinstance(image, Image.Image):
        check_depth(image, "the image")
    from torchvision.transforms import v2

    return v2.functional.grayscale_to_rgb(image)


def eval_transform(
    image_size: int, mean: tuple[float, ...], std: tuple[float, ...], resizing: Resizing | None = None
) -> v2.Compose:
    """Resize, crop, normalisation: of a PIL image or a tensor `(3, H, W)` in 0 … 1.

    The result is `(3, image_size, image_size)` float32. resizing: by default bilinear on the shorter side, and a centre
    crop of 0.875.
    """
    from torchvision.transforms import v2

    steps = (resizing or Resizing()).steps(image_size, mean)
    return v2.Compose([in_colour, *steps, *_to_pixels(), *_to_normalised(mean, std)])


def _to_pixels() -> list[Any]:
    from torchvision.transforms import v2

    return [v2.ToImage(), v2.ToPureTensor()]


def _to_normalised(mean: tuple[float, ...], std: tuple[float, ...]) -> list[Any]:
    from torchvision.transforms import v2

    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))]
