"""A file that another library writes: under its own name only when it is whole, and when nothing was wrong with it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from image2video.runs.atomic import flush_folder, writing


@contextlib.contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Give a hidden path beside `target`, with its suffix, which takes its place at the end of the `with` block.

    Where the block raises, what it wrote is deleted, and what stood at `target` before is unchanged.

    Raises:
        WriteError: the folder cannot be made, or the disk refuses the file.
    """
    partial = target.with_name(f".{target.stem}.{os.getpid()}.part{target.suffix}")
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        with writing(target):
            with open(partial, "rb") as handle:
                os.fsync(handle.fileno())
            os.replace(partial, target)
            flush_folder(target.parent)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
