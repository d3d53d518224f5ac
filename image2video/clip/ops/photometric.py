"""The photometric ops: colours change, pixels stay in their place.

Every function takes images `(N, C, H, W)` in 0 … 1, the magnitude of one step and the power s, and treats each image by
itself. At s = 0 and at the neutral magnitude it is the identity; where a sign makes no sense, |s| counts. Values follow
torchvision's functions (transforms v2) on float images; its autocontrast and sharpness cannot be differentiated there,
so these two are written out. What a power means is ours: the published ops are applied once.

Gradients: those of `equalize`, `solarize` and `posterize` are straight-through (the identity's), all others exact.
"""

from __future__ import annotations

import math
from types import ModuleType

import torch
from torch import Tensor

from image2video.clip.ops.op import Op
from image2video.errors import InputError

_GREY = 0.5
_FLAT = 1 / 510  # half a grey level of 8 bits
_PLASTIC = 1.324717957244746  # the real root of x³ = x + 1
_LARGEST_POWER = 64.0  # of two: beyond it every pixel is clamped anyway


def autocontrast(images: Tensor, magnitude: float, step: float) -> Tensor:
    """Stretch each channel so that it fills 0 … 1, with weight min(|s|·magnitude, 1) of a blend; exact gradient.

    A channel whose values span less than half an 8-bit grey level stays as it is. torchvision stretches whatever
    differs; in floats that would blow up rounding errors.
    """
    strength = _strength(magnitude, step)
    if strength == 0:
        return images
    low, high = images.amin(dim=(-2, -1), keepdim=True), images.amax(dim=(-2, -1), keepdim=True)
    flat = high - low < _FLAT
    stretched = (images - low) / torch.where(flat, 1.0, high - low)
    return _blend(images, torch.where(flat, images, stretched.clamp(0, 1)), strength)


def invert(images: Tensor, magnitude: float, step: float) -> Tensor:
    """Blend in 1 − x with weight min(|s|·magnitude, 1); exact gradient."""
    strength = _strength(magnitude, step)
    return images if strength == 0 else _blend(images, _torchvision().invert(images), strength)


def equalize(images: Tensor, magnitude: float, step: float) -> Tensor:
    """Make the histogram of each channel even, with weight min(|s|·magnitude, 1) of a blend; straight-through gradient.

    Values are rounded to 8 bits on the way, as in torchvision.
    """
    strength = _strength(magnitude, step)
    return images if strength == 0 else _blend(images, _torchvision().equalize(images), strength)


def solarize(images: Tensor, magnitude: float, step: float) -> Tensor:
    """Replace x by 1 − x from the threshold 1 − |s|·magnitude (at least 0) on; straight-through gradient."""
    strength = _strength(magnitude, step)
    return images if strength == 0 else _torchvision().solarize(images, threshold=1.0 - strength)


def posterize(images: Tensor, magnitude: float, step: float) -> Tensor:
    """Cut values to 8 − |s|·magnitude bits (rounded, at least 1); straight-through gradient.

    Eight bits are the images themselves.
    """
    bits = max(1, math.floor(8.5 - abs(step) * magnitude))
    return images if bits == 8 else _torchvision().posterize(images, bits=bits)


def color(images: Tensor, magnitude: float, step: float) -> Tensor:
    """Multiply the saturation by magnitude^s: a blend of each image with its grey version; exact gradient.

    Images of one channel stay as they are.
    """
    _check_channels(images, "color")
    return _torchvision().adjust_saturation(images, saturation_factor=_factor(magnitude, step))


def brightness(images: Tensor, magnitude: float, step: float) -> Tensor:
    """Multiply values by magnitude^s and clamp them; exact gradient."""
    _check_channels(images, "brightness")
    return _torchvision().adjust_brightness(images, brightness_factor=_factor(magnitude, step))


def contrast(images: Tensor, magnitude: float, step: float) -> Tensor:
    """Multiply the distance from the image's mean grey by magnitude^s and clamp; exact gradient."""
    _check_channels(images, "contrast")
    return _torchvision().adjust_contrast(images, contrast_factor=_factor(magnitude, step))


def sharpness(images: Tensor, magnitude: float, step: float) -> Tensor:
    """Multiply the distance from the smoothed image by magnitude^s and clamp; exact gradient.

    Smoothed by the 3×3 kernel of ones with 5 in the middle, over 13; the outermost pixels stay, and so do images of
    less than 3×3 pixels (as in torchvision).
    """
    if min(images.shape[-2:]) <= 2:
        return images
    inner = images[..., 1:-1, 1:-1]
    rows = images[..., :-2, :] + images[..., 1:-1, :] + images[..., 2:, :]
    smooth = (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * inner) / 13
    change = (_factor(magnitude, step) - 1) * (inner - smooth)
    return (images + torch.nn.functional.pad(change, (1, 1, 1, 1))).clamp(0, 1)


def cutout(images: Tensor, magnitude: float, step: float) -> Tensor:
    """Make one square of each image grey, 0.5 (DeVries and Taylor, 2017, arXiv 1708.04552); exact gradient.

    See `cutout_box` for its side and place.
    """
    if magnitude == 0 or step == 0:
        return images
    top, left, side = cutout_box(magnitude, step, *images.shape[-2:])
    return _torchvision().erase(images, top, left, side, side, v=images.new_full((), _GREY))


def cutout_box(magnitude: float, step: float, height: int, width: int) -> tuple[int, int, int]:
    """Return top, left and side, in pixels, of the square that `cutout` fills in images of `height` × `width`.

    The side is magnitude × the shorter side at every power. The square lies inside the image; the step alone chooses
    its place, point s of the R₂ low-discrepancy sequence. (Ours: the published op draws a place at random and may cut
    the square at the border, but a clip has to be a function of its image.)
    """
    side = min(max(1, math.floor(magnitude * min(height, width) + 0.5)), height, width)
    y, x = (0.5 + step / _PLASTIC**2) % 1.0, (0.5 + step / _PLASTIC) % 1.0
    last_top, last_left = height - side, width - side
    top = min(int(y * (last_top + 1)), last_top)
    left = min(int(x * (last_left + 1)), last_left)
    return top, left, side


def _strength(magnitude: float, step: float) -> float:
    """Return the weight of a blend at a power: |s|·magnitude, at most 1."""
    return min(abs(step) * magnitude, 1.0)


def _factor(magnitude: float, step: float) -> float:
    """Return magnitude^s, kept from overflowing."""
    return 2.0 ** max(-_LARGEST_POWER, min(_LARGEST_POWER, step * math.log2(magnitude)))


def _blend(images: Tensor, changed: Tensor, strength: float) -> Tensor:
    """Mix the changed images into the given ones."""
    return changed if strength == 1 else torch.lerp(images, changed, strength)


def _check_channels(images: Tensor, name: str) -> None:
    """Raise `InputError` for images that torchvision takes for neither grey nor RGB."""
    if images.shape[-3] not in (1, 3):
        raise InputError(
            f"{name} needs images with 1 or 3 channels (grey or RGB), got {images.shape[-3]}; leave it out of the "
            "genotype for such images"
        )


def _torchvision() -> ModuleType:
    """Import torchvision's functions at their first use, so that importing the library stays quick."""
    from torchvision.transforms.v2 import functional

    return functional


PHOTOMETRIC_OPS: tuple[Op, ...] = (
    Op("autocontrast", "(strength)", 1, 0, 1, 0, pixels=autocontrast),
    Op("invert", "(strength)", 1, 0, 1, 0, pixels=invert),
    Op("equalize", "(strength)", 1, 0, 1, 0, pixels=equalize, gradient="straight_through"),
    Op("solarize", "of the value range", 0.1, 0, 1, 0, pixels=solarize, gradient="straight_through"),
    Op("posterize", "bits", 1, 0, 7, 0, pixels=posterize, gradient="straight_through"),
    Op("color", "(factor)", 1.2, 0.25, 4, 1, pixels=color),
    Op("brightness", "(factor)", 1.1, 0.25, 4, 1, pixels=brightness),
    Op("contrast", "(factor)", 1.1, 0.25, 4, 1, pixels=contrast),
    Op("sharpness", "(factor)", 1.3, 0.25, 4, 1, pixels=sharpness),
    Op("cutout", "of the shorter side", 0.25, 0, 1, 0, pixels=cutout),
)
