"""Several handwritten digits on one canvas, with the class of every pixel: a segmentation set without a download."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from image2video.data.digits import load_digits
from image2video.data.limits import check_images_memory
from image2video.data.seeds import derive_seed
from image2video.errors import InputError

CLASSES = ("background", *"0123456789")
"""The classes in the order of the labels: 0 is the background, 1 + d the digit d."""

_SCENES = (1500, 500)  # training and test; the same whatever the seed, so that no run trains on another's test set
_SEED = 0
_FEWEST, _MOST = 3, 6
_SHARE_OF_CANVAS = 3  # a digit's box is a third of the canvas: 16 pixels of 48, twice its stored size
_SMALLEST = 24
_INK = 0.3  # a pixel brighter than this, of 0 … 1, is the digit's
_LEAST_SEEN = 0.75  # of a digit's ink, whatever is pasted later
_TRIES = 100


def load_digit_scenes(image_size: int = 48) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """1500 training and 500 test scenes as ((images, labels), (images, labels)); always the same.

    Images are `(N, 1, image_size, image_size)` uint8; labels `(N, image_size, image_size)` uint8, see `CLASSES`. Each
    scene holds 3 to 6 of scikit-learn's digits, a third of the canvas in size, at random places; what is pasted later
    leaves at least three quarters of the ink of every earlier one to be seen. Test scenes are made of the test digits
    of `digits`, which no training scene holds. Raises `InputError` for an image_size below 24.
    """
    if image_size < _SMALLEST:
        raise InputError(f"digit_scenes need at least {_SMALLEST} pixels per side, got image_size={image_size}")
    check_images_memory(sum(_SCENES), 2, image_size)  # the image, and the class of every pixel
    parts = load_digits(image_size // _SHARE_OF_CANVAS)
    scenes = []
    for part, ((images, labels), count) in enumerate(zip(parts, _SCENES, strict=True)):
        random = np.random.default_rng(derive_seed(_SEED, part))
        scenes.append(_scenes(images.squeeze(1).numpy(), labels.numpy(), count, image_size, random))
    return scenes[0], scenes[1]


def _scenes(
    digits: np.ndarray, classes: np.ndarray, count: int, size: int, random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """`count` scenes of digits `(D, s, s)` uint8: images `(count, 1, size, size)` and labels `(count, size, size)`."""
    images = np.zeros((count, size, size), np.uint8)
    labels = np.zeros((count, size, size), np.uint8)
    for image, label in zip(images, labels, strict=True):
        chosen = random.integers(len(digits), size=random.integers(_FEWEST, _MOST + 1))
        _compose(image, label, digits[chosen], classes[chosen], random)
    return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels)


def _compose(
    image: np.ndarray, label: np.ndarray, digits: np.ndarray, classes: np.ndarray, random: np.random.Generator
) -> None:
    """Paste digits `(n, s, s)` into one canvas and its labels, both `(size, size)`, in place."""
    box, free = digits.shape[-1], image.shape[0] - digits.shape[-1] + 1
    owner = np.full(image.shape, -1)  # which digit every pixel shows
    ink = digits > _INK * 255
    whole = ink.sum((1, 2))
    for number, (digit, inked) in enumerate(zip(digits, ink, strict=True)):
        for _ in range(_TRIES):
            top, left = random.integers(free, size=2)
            place = slice(top, top + box), slice(left, left + box)
            trial = owner.copy()
            trial[place][inked] = number
            seen = np.bincount(trial[trial >= 0], minlength=number + 1)
            if (seen >= _LEAST_SEEN * whole[: number + 1]).all():
                owner = trial
                # Soft edges never darken what lies below them.
                image[place] = np.where(inked, digit, np.maximum(image[place], digit))
                break
        else:
            raise AssertionError(f"digit {number + 1} of {len(digits)} found no place in {_TRIES} tries")
    label[...] = np.where(owner < 0, 0, classes[owner] + 1)
