"""Which image files a data folder holds, and their classes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from image2video.errors import InputError, MissingError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})


def scan_folder(root: Path) -> tuple[tuple[str, ...], list[str], list[int]]:
    """(classes, paths, labels) of a folder with one sub-folder per class, searched to any depth, in sorted order.

    Raises `MissingError` where `root` is no folder, `InputError` where it is empty or a class holds no image.
    """
    if not root.is_dir():
        raise MissingError(f"no folder {root}; a folder source needs train/ and val/ with one sub-folder per class")
    classes = class_folders(root)
    if not classes:
        raise InputError(f"{root} holds no class folder; it needs one sub-folder per class with images inside")
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = image_files(root / name)
        if not found:
            suffixes = " ".join(sorted(IMAGE_SUFFIXES))
            raise InputError(f"the class folder {root / name} holds no image ({suffixes}); delete it or fill it")
        paths += found
        labels += [label] * len(found)
    return classes, paths, labels


def class_folders(root: Path) -> tuple[str, ...]:
    """The names of the sub-folders of `root`, sorted; none where there is no such folder."""
    if not root.is_dir():
        return ()
    return tuple(sorted(e.name for e in os.scandir(root) if e.is_dir() and not e.name.startswith(".")))


def image_files(folder: Path) -> list[str]:
    """The image files below `folder`, at any depth, sorted; hidden files are skipped."""
    found: list[str] = []
    for where, _, names in os.walk(folder, followlinks=True):
        shown = [name for name in names if not name.startswith(".")]
        images = [name for name in shown if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES]
        found += [os.path.join(where, name) for name in images]
    return sorted(found)


def tiny_imagenet_val(root: Path, classes: Sequence[str]) -> tuple[tuple[str, ...], list[str], list[int]]:
    """(classes, paths, labels) of Tiny-ImageNet's own val/: all images in one folder, labelled by val_annotations.txt.

    Raises `InputError` where a line names a class that train/ does not have, `MissingError` for an image not there.
    """
    number = {name: label for label, name in enumerate(classes)}
    paths: list[str] = []
    labels: list[int] = []
    for line in (root / "val_annotations.txt").read_text().splitlines():
        name, wnid = line.split("\t")[:2]
        if wnid not in number:
            raise InputError(f"{root / 'val_annotations.txt'} needs classes that train/ has, got {wnid!r}")
        path = root / "images" / name
        if not path.is_file():
            raise MissingError(f"no file {path}, which {root / 'val_annotations.txt'} names; restore it")
        paths.append(str(path))
        labels.append(number[wnid])
    return tuple(classes), paths, labels


def annotated_classes(root: Path) -> tuple[str, ...]:
    """The classes that Tiny-ImageNet's val_annotations.txt names, sorted: its order where train/ is not there."""
    lines = (root / "val_annotations.txt").read_text().splitlines()
    return tuple(sorted({line.split("\t")[1] for line in lines}))
