"""Reading one image file: upright, at its depth, or refused by name."""

from __future__ import annotations

import functools
import os
import stat

import numpy as np
import torch
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

from image2video.clip.memory import check_memory
from image2video.errors import InputError

_BITS, _PHOTOMETRIC = 258, 262  # tags of TIFF
_NUMBERS = {"I": "whole numbers of 32 bits", "F": "floating-point numbers"}


def read_image(path: str | os.PathLike[str]) -> Image.Image | Tensor:
    """Read an image file in colour, upright as its EXIF orientation says.

    Args:
        path: a file of a kind that Pillow knows.

    Returns:
        An RGB image of Pillow where the file has at most 8 bits a channel; for more a tensor `(3, H, W)` of float32 in
        0 … 1, with white at the largest number of that depth.

    Raises:
        InputError: the file is damaged, no image, no regular file, larger than the memory, of a depth without a white
            (32-bit numbers, floats), or of one that Pillow would cut to 8 bits; the message names it.

    """
    name = os.fspath(path)
    try:
        if not stat.S_ISREG(os.stat(name).st_mode):  # opening a FIFO would wait for ever
            raise InputError(f"cannot read the image {name}: it must be a regular file; replace or delete it")
        # From an open file: Pillow maps one that it is given by name, and takes the rows of a turned TIFF for columns.
        with open(name, "rb") as file, Image.open(file) as image:
            bits = _bits(image)
            _check_size(image, bits, name)
            if bits > 8:
                return _deep(image, bits, name)
            ImageOps.exif_transpose(image, in_place=True)
            return image.convert("RGB")
    except InputError:
        raise
    except Exception as error:  # decoders meet damaged files with errors of every type
        reason = str(error).rstrip(".") or type(error).__name__
        raise InputError(f"cannot read the image {name}: {reason}; replace or delete it") from error


def check_depth(image: Image.Image, name: str) -> None:
    """Raise `InputError` for an image of Pillow whose pixels have no white: it would be clipped to one colour."""
    kind = image.mode[0]
    if kind in _NUMBERS:
        numbers = "16-bit numbers" if image.mode.startswith("I;16") else _NUMBERS[kind]
        raise InputError(
            f"{name} must have pixels of 8 or 16 bits a channel, got {numbers} (mode {image.mode}), which say nothing "
            "of black and white; save it otherwise, or give a tensor (3, H, W) in 0 … 1"
        )


@functools.cache
def check_eight_bits(path: str, what: str) -> None:
    """Raise `InputError` where a file that another library reads as `what` has more than 8 bits, which it would cut."""
    try:
        with open(path, "rb") as file, Image.open(file) as image:
            bits, mode = _bits(image), image.mode
    except (OSError, SyntaxError, ValueError):
        return  # who reads it says what is wrong with it, or knows a format that Pillow does not
    if bits > 8 or mode[0] in _NUMBERS:
        raise InputError(
            f"{path} must have 8 bits a channel, got {max(bits, 16)} (mode {mode}): {what} would be cut to 8; save it "
            "with 8 bits"
        )


def pixels(image: Image.Image | Tensor) -> Tensor:
    """The pixels of what `read_image` gave: `(3, H, W)`, uint8; deeper ones are rounded to 8 bits."""
    if isinstance(image, Tensor):
        return image.mul(255).round().to(torch.uint8)
    check_depth(image, "the image")
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def unit_pixels(image: Image.Image | Tensor) -> Tensor:
    """The pixels of what `read_image` gave, at their depth: `(3, H, W)`, float32 in 0 … 1."""
    return image if isinstance(image, Tensor) else pixels(image).float() / 255


def _bits(image: Image.Image) -> int:
    """The bits of a channel in the file: Pillow's mode says 8 for colours of 16."""
    if isinstance(image, TiffImageFile):
        return int(max(image.tag_v2.get(_BITS, (1,))))
    if not isinstance(image, ImageFile) or not image.tile:
        return 8
    how = image.tile[0][3]  # what the decoder is told: a raw mode, or the raw mode and the largest number
    if image.format == "PNG":
        return 16 if ";16" in str(how) else 8
    if image.format == "PPM":
        return 16 if image.mode == "I" or (isinstance(how, tuple) and how[-1] > 255) else 8
    return 8


def _check_size(image: Image.Image, bits: int, name: str) -> None:
    """Refuse an image that the memory cannot hold as it is decoded, before it is."""
    per_pixel = len(image.getbands()) + 3 if bits <= 8 else 2 * len(image.getbands()) + 12
    width, height = image.size
    needed = width * height * per_pixel
    check_memory(needed, f"the image {name} of {width}×{height} pixels", "use a smaller one")


def _deep(image: Image.Image, bits: int, name: str) -> Tensor:
    """Pixels of more than 8 bits as `(3, H, W)` in 0 … 1."""
    grey = image.mode.startswith("I;16") or (image.format == "PPM" and image.mode == "I")
    if not grey:
        if len(image.getbands()) > 1:
            raise InputError(
                f"cannot read the image {name}: Pillow cuts the {bits} bits of its colours to 8; save it with 8 "
                "bits a channel"
            )
        check_depth(image, f"the image {name}")
    ImageOps.exif_transpose(image, in_place=True)
    white = 2**bits - 1
    values = torch.from_numpy(np.array(image).astype(np.float32)) / white
    if isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == 0:  # white is zero
        values = 1 - values
    return values.expand(3, -1, -1).contiguous()
