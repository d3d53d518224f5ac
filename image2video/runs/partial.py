"""A file that another library writes: under its own name only when it is whole, and when nothing was wrong with it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from image2video.runs.atomic import flush_folder, writing


@contextlib.contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Give a path in a hidden folder beside `target`; the file takes its place at the end of the `with` block.

    The path has the target's name, since some formats write it into the file.

    Where the block raises, what it wrote is deleted, and what stood at `target` before is unchanged.

    Raises:
        WriteError: the folder cannot be made, or the disk refuses the file.
    """
    folder = target.with_name(f".{target.name}.{os.getpid()}.part")
    partial = folder / target.name
    with writing(target):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        with writing(target):
            with open(partial, "rb") as handle:
                os.fsync(handle.fileno())
            os.replace(partial, target)
            flush_folder(target.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
