"""A file that another library writes: under its own name only when it is whole, and when nothing was wrong with it."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from image2video.runs.atomic import flush_folder, writing


@contextlib.contextmanager
def whole_file(target: Path, beside: Sequence[Path] = ()) -> Iterator[Path]:
    """Give a path in a hidden folder beside `target`; the file takes its place at the end of the `with` block.

    The path has the target's name, since some formats write it into the file.

    Where the block raises, what it wrote is deleted, and what stood at `target` before is unchanged.

    Args:
        target: the file.
        beside: further files of the same folder, which the block writes next to the path that it is given; they take
            their places just before.

    Raises:
        WriteError: the folder cannot be made, or the disk refuses the file.
    """
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        # A new one each time: threads of one process may write the same file.
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    partial = folder / target.name
    try:
        yield partial
        with writing(target):
            finished = [*(partial.with_name(path.name) for path in beside), partial]
            for path in finished:
                with open(path, "rb") as handle:
                    os.fsync(handle.fileno())
            for path in finished:
                os.replace(path, target.with_name(path.name))
            flush_folder(target.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
