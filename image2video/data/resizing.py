"""How image files become squares: interpolation, and what is cut off."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from PIL import ImageOps

from image2video.errors import InputError

if TYPE_CHECKING:  # imported below where it is used: it takes as long as torch, and images in memory need none of it
    from torchvision.transforms import InterpolationMode

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
CROP_MODES = ("center", "squash", "border")


@dataclass(frozen=True)
class Resizing:
    """How image files become squares for evaluation; the terms and their meaning are timm's.

    Attributes:
        interpolation: of the resize: `bilinear`, `bicubic`, `lanczos` or `nearest`; training uses it too.
        crop_fraction: the side of the square over the side that the image is resized to (0.875: 224 of 256).
        crop_mode: `center` resizes the shorter side and cuts the square out of the middle, `squash` resizes both
            sides, whatever their ratio, `border` resizes the longer side and fills up with the mean colour.

    Raises:
        InputError: an unknown word, or a fraction outside 0 … 1.
    """

    interpolation: str = "bilinear"
    crop_fraction: float = 0.875
    crop_mode: str = "center"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("resize", self.interpolation, INTERPOLATIONS),
            ("crop_mode", self.crop_mode, CROP_MODES),
        ):
            if value not in known:
                raise InputError(f"unknown {name} {value!r}; choose one of {', '.join(known)}")
        if not (isinstance(self.crop_fraction, int | float) and 0 < self.crop_fraction <= 1):
            raise InputError(f"crop_fraction must be above 0 and at most 1, got {self.crop_fraction!r}")

    def steps(self, image_size: int, mean: tuple[float, ...]) -> list[Any]:
        """The transforms of a PIL image in RGB to one of `image_size` pixels a side.

        mean: the colour of a border, per channel in 0 … 1.
        """
        from torchvision.transforms import v2

        resized, mode = math.floor(image_size / self.crop_fraction), self.mode
        crop = v2.CenterCrop(image_size)
        if self.crop_mode == "squash":
            return [v2.Resize((resized, resized), interpolation=mode, antialias=True), crop]
        if self.crop_mode == "border":
            return [_Bordered(resized, self.interpolation, tuple(round(255 * value) for value in mean)), crop]
        return [v2.Resize(resized, interpolation=mode, antialias=True), crop]

    @property
    def mode(self) -> InterpolationMode:
        """The interpolation as torchvision names it."""
        from torchvision.transforms import InterpolationMode

        return InterpolationMode(self.interpolation)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        crop = {"center": "centre crop of", "squash": "squashed, crop of", "border": "bordered, crop of"}
        return f"{self.interpolation} resize, {crop[self.crop_mode]} {self.crop_fraction:g}"


@dataclass(frozen=True)
class _Bordered:
    """The whole image within a square of `size` pixels, the rest in one colour."""

    size: int
    interpolation: str
    colour: tuple[int, ...]

    def __call__(self, image: Any) -> Any:
        method = getattr(ImageOps.Image.Resampling, self.interpolation.upper())
        return ImageOps.pad(image, (self.size, self.size), method=method, color=self.colour)
