"""The library's digits with few test images and few scenes, for tests of what stands around a training: of 599 images
the test takes longer than the training on a few dozen. What `load_digits` and `load_digit_scenes` give is the subject
of tests/data/.
"""

from collections.abc import Iterator

import pytest
from torch import Tensor

from image2video.data import digit_scenes, memory_source
from image2video.data.digits import load_digits

TESTED = 100
"""Test images of the digits: every sixth of 599."""
SCENES = (160, 80)
"""Scenes to train on and to test with: the first of 1500 and of 500."""


def few(image_size: int = 16) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The digits as `load_digits` gives them, but for most of the test images."""
    train, (images, labels) = load_digits(image_size)
    return train, (images[::6], labels[::6])


def few_digits() -> Iterator[None]:
    """The body of a fixture under which digits and their scenes are tested with few images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory_source, "load_digits", few)
        patch.setattr(digit_scenes, "_SCENES", SCENES)
        yield
