"""The part of a data set that was not read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from image2video.errors import InputError

PARTS = ("train", "test")
"""The parts of a data set; held-out images come from the training part."""


@dataclass
class AbsentSet:
    """An `ImageSet` without images, in place of a part that nobody asked for; its images are an `InputError`.

    Attributes:
        part: `train` or `test`.
        source: the text of the data.
    """

    part: str
    source: str
    num_images: int = 0

    def split(self, fraction: float, *, seed: int) -> NoReturn:
        """Refuse."""
        self._refuse()

    def take(self, count: int, *, seed: int) -> NoReturn:
        """Refuse."""
        self._refuse()

    def batches(self, batch_size: int, **order: Any) -> NoReturn:
        """Refuse."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise InputError(f"the {self.part} part of {self.source} was not read; load the data with parts={PARTS}")
