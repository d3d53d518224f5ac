"""Arrays of an .npz file, read without pickle: what is damaged or claims more than it holds is an `InputError`."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from image2video.errors import Image2VideoError, InputError


class NpzArrays:
    """The arrays of a file by name, each read and checked against its checksum when it is asked for.

    Args:
        path: of the file.

    Raises:
        InputError: no .npz file; from `self[name]` also an array that is damaged, holds Python objects, or claims more
            values than the file has bytes for.

    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _readable(path):
            self._archive = zipfile.ZipFile(path)
        self.files = [name.removesuffix(".npy") for name in self._archive.namelist()]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.close()

    def __getitem__(self, name: str) -> np.ndarray:
        with _readable(self._path, f"its array {name!r:.80}"):
            info = self._archive.getinfo(f"{name}.npy")
            with self._archive.open(info) as member:
                self._check_size(name, member, info.file_size)
            with self._archive.open(info) as member:
                array = np.lib.format.read_array(member, allow_pickle=False)
                member.read()  # to the end, where the checksum is compared
        return array

    def _check_size(self, name: str, member: Any, size: int) -> None:
        """Refuse an array whose header claims more values than there are, before memory is taken for them."""
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
        if dtype.hasobject:
            return  # refused when it is read: that would take pickle
        needed = dtype.itemsize
        for length in shape:
            needed *= length
        if any(length < 0 for length in shape) or needed > size:
            raise InputError(
                f"{self._path}: its array {name!r:.80} must hold {needed} bytes to have the shape {shape!r:.80}, got "
                f"{size}; restore a copy"
            )


@contextmanager
def _readable(path: Path, what: str = "it") -> Iterator[None]:
    """Turn whatever zipfile and NumPy make of damaged bytes into an `InputError`."""
    try:
        yield
    except Image2VideoError:
        raise
    except Exception as error:  # a flipped bit raises struct.error, zlib.error, NotImplementedError, SyntaxError, …
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"cannot read {path} as arrays without pickle ({what}: {reason:.200}); restore a copy"
        ) from error
