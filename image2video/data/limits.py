"""Data that the memory cannot hold, refused before it is read or made."""

from __future__ import annotations

import zipfile
from pathlib import Path

from image2video.clip.memory import check_memory
from image2video.errors import InputError


def check_images_memory(count: int, channels: int, size: int, *, bytes_per_value: int = 1) -> None:
    """Raise `InputError` where `count` images of `size` × `size` pixels, all kept at once, need more than there is."""
    images = "an image" if count == 1 else f"{count} images"
    what = f"image_size={size}: {images} of {channels}×{size}×{size}"
    check_memory(count * channels * size * size * bytes_per_value, what, "ask for smaller images")


def check_npz_memory(path: Path) -> None:
    """Raise `InputError` where the arrays of a file need more than there is: zeros take no space in the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            needed = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError) as error:
        raise InputError(f"cannot read {path} as arrays without pickle: {error}; restore a copy") from error
    check_memory(needed, f"{path}: its arrays", "use image files (folder:PATH), which are read when they are needed")
