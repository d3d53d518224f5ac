"""Which image files a data folder holds, and their classes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from image2video.errors import InputError, MissingError
from image2video.runs.texts import MAX_RECORD_BYTES, read_text

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})


def scan_folder(root: Path) -> tuple[tuple[str, ...], list[str], list[int]]:
    """(classes, paths, labels) of a folder with one sub-folder per class, searched to any depth, in sorted order.

    Raises `MissingError` where `root` is no folder, `InputError` where it is empty or a class holds no image.
    """
    if not root.is_dir():
        raise MissingError(f"no folder {root}; a folder source needs train/ and val/ with one sub-folder per class")
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
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
    return tuple(classes), paths, labels


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
    label_of = {name: label for label, name in enumerate(classes)}
    paths: list[str] = []
    labels: list[int] = []
    annotations = root / "val_annotations.txt"
    lines = read_text(annotations, "labels file", max_bytes=MAX_RECORD_BYTES).splitlines()
    for number, line in enumerate(lines, start=1):
        name, tab, rest = line.partition("\t")
        if not tab:
            raise InputError(f"{annotations}, line {number}: expected IMAGE, a tab and CLASS, got {line!r:.80}")
        wnid = rest.partition("\t")[0]
        if wnid not in label_of:
            raise InputError(f"{annotations}, line {number} needs a class that train/ has, got {wnid!r:.80}")
        path = root / "images" / name
        if Path(name).name != name or not os.path.isfile(path):
            raise MissingError(f"no file {str(path)!r:.300}, which {annotations}, line {number}, names; restore it")
        paths.append(str(path))
        labels.append(label_of[wnid])
    return tuple(classes), paths, labels
