"""Which image files a data folder holds, and their classes."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from image2video.errors import InputError, MissingError
from image2video.runs.texts import MAX_RECORD_BYTES, read_text

_ANNOTATIONS = "val_annotations.txt"
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
    seen: dict[str, str] = {}
    for label, name in enumerate(classes):
        found = image_files(root / name)
        if not found:
            suffixes = " ".join(sorted(IMAGE_SUFFIXES))
            raise InputError(f"the class folder {root / name} holds no image ({suffixes}); delete it or fill it")
        for path in found:
            other = seen.setdefault(os.path.realpath(path), path)
            if other != path:
                raise InputError(f"{path} and {other} are one file in two classes; remove one of the links")
        paths += found
        labels += [label] * len(found)
    return classes, paths, labels


def class_folders(root: Path) -> tuple[str, ...]:
    """The names of the sub-folders of `root`, sorted; none where there is no such folder."""
    if not root.is_dir():
        return ()
    return tuple(sorted(e.name for e in os.scandir(root) if e.is_dir() and not e.name.startswith(".")))


def image_files(folder: Path) -> list[str]:
    """The image files below `folder`, at any depth, sorted; hidden files are skipped.

    Links are followed, and each folder and file counts once: a link back to a folder above leads nowhere. What is left
    out for it, or since it is no regular file, is said in a warning. Raises `MissingError` for a link to nothing,
    `InputError` for a folder that cannot be listed.
    """
    found: dict[str, str] = {}
    left_out: list[str] = []
    for path in _image_paths(folder, left_out):
        try:
            regular = stat.S_ISREG(os.stat(path).st_mode)
        except FileNotFoundError as error:
            raise MissingError(f"{path} is a link to {os.readlink(path)}, which is not there; restore it") from error
        if not regular or found.setdefault(os.path.realpath(path), path) != path:
            left_out.append(path)
    if left_out:
        warnings.warn(
            f"{folder}: {len(left_out)} paths are links to what is counted already, or no regular files, and are left "
            f"out ({min(left_out)}, …)",
            stacklevel=2,
        )
    return sorted(found.values())


def _image_paths(folder: Path, left_out: list[str]) -> Iterator[str]:
    """The paths with an image's ending in and below a folder, those behind links last.

    Links to a folder that is walked already, or that lies above, are put into `left_out`.
    """
    top = Path(os.path.realpath(folder))
    walked, folders = {str(parent) for parent in top.parents}, [str(folder)]
    links: list[str] = []
    while folders or links:
        where = folders.pop() if folders else links.pop()
        real = os.path.realpath(where)
        if real in walked:
            left_out.append(where)
            continue
        walked.add(real)
        try:
            entries = sorted(os.scandir(where), key=lambda entry: (entry.is_symlink(), entry.name))
        except OSError as error:
            raise InputError(f"cannot list {where}: {error.strerror}; make it readable, or delete it") from error
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                (links if entry.is_symlink() else folders).append(entry.path)
            elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                yield entry.path


def tiny_imagenet_val(root: Path, classes: Sequence[str]) -> tuple[tuple[str, ...], list[str], list[int]]:
    """(classes, paths, labels) of Tiny-ImageNet's own val/: all images in one folder, labelled by val_annotations.txt.

    Raises `InputError` where a line names a class that train/ does not have, `MissingError` for an image not there.
    """
    label_of = {name: label for label, name in enumerate(classes)}
    paths: list[str] = []
    labels: list[int] = []
    annotations = root / _ANNOTATIONS
    for number, (name, wnid) in enumerate(_annotations(root), start=1):
        if wnid not in label_of:
            raise InputError(f"{annotations}, line {number} needs a class that train/ has, got {wnid!r:.80}")
        path = root / "images" / name
        if Path(name).name != name or not os.path.isfile(path):
            raise MissingError(f"no file {str(path)!r:.300}, which {annotations}, line {number}, names; restore it")
        paths.append(str(path))
        labels.append(label_of[wnid])
    return tuple(classes), paths, labels


def annotated_classes(root: Path) -> tuple[str, ...]:
    """The classes that Tiny-ImageNet's val_annotations.txt names, sorted: its order where train/ is not there."""
    return tuple(sorted({wnid for _, wnid in _annotations(root)}))


def _annotations(root: Path) -> list[tuple[str, str]]:
    """The image and the class of every line of val_annotations.txt."""
    annotations = root / _ANNOTATIONS
    found = []
    lines = read_text(annotations, "labels file", max_bytes=MAX_RECORD_BYTES).splitlines()
    for number, line in enumerate(lines, start=1):
        name, tab, rest = line.partition("\t")
        if not tab:
            raise InputError(f"{annotations}, line {number}: expected IMAGE, a tab and CLASS, got {line!r:.80}")
        found.append((name, rest.partition("\t")[0]))
    return found
