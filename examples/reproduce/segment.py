"""One arm of a segmentation table with one seed: a mmsegmentation config, trained and tested by mmengine's Runner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator

from image2video.errors import UnsupportedError
from image2video.protocols import Progress
from image2video.reproduce.book import Book, Run


def run_segmentation(
    run: Run, book: Book, accelerator: Accelerator, *, specs: Mapping[str, str], progress: Progress | None = None
) -> dict[str, Any]:
    """Train and test one arm with one seed."""
    raise UnsupportedError("rows of segmentation are not built yet")
