"""A look at the pickles of a torch file before torch reads them."""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import torch

from image2video.errors import InputError

LONGEST_NAME = 1000
"""Characters of the name of a class with its module."""

_ZIP = b"PK\x03\x04"
_LEGACY_PICKLES = 5
"""In the format before the zip: a magic number, a version, the machine, the object, the keys of its storages."""


def check_names(path: Path) -> None:
    """Refuse a torch file that names a class by a text longer than any name.

    torch.load refuses such a class too, but looks for words in its message with patterns whose time grows with the
    square of the name: a file of one megabyte would keep it busy for hours.

    Raises:
        InputError: such a name.
        UnpicklingError: no pickles.
        Exception: whatever damaged bytes make of a zip file.
    """
    with open(path, "rb") as file:
        for stream in _pickles(path, file):
            for name in _class_names(stream):
                if len(name) > LONGEST_NAME:
                    raise InputError(
                        f"expected names of classes with at most {LONGEST_NAME} characters, got one with {len(name)}, "
                        f"{name[:40]!r}…"
                    )


def _pickles(path: Path, file: BinaryIO) -> Iterator[BinaryIO]:
    """Yield streams that stand at the beginning of each pickle that torch.load reads."""
    is_zip = file.read(len(_ZIP)) == _ZIP
    if is_zip:
        yield io.BytesIO(torch._C.PyTorchFileReader(str(path)).get_record("data.pkl"))
        return
    file.seek(0)
    for _ in range(_LEGACY_PICKLES):
        yield file


def _class_names(stream: BinaryIO) -> Iterator[str]:
    """Yield the classes that one pickle names, and leave the stream at its end."""
    try:
        for op, argument, _ in pickletools.genops(stream):
            if op.name in ("GLOBAL", "INST"):
                yield str(argument)
    except ValueError as error:
        raise pickle.UnpicklingError(str(error)) from error
