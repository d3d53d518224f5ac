"""The source `folder:PATH`: image files in train/ and val/."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from image2video.data.folder import ImageFiles, LoadedSet, Loading
from image2video.data.limits import check_images_memory
from image2video.data.scan import annotated_classes, class_folders, scan_folder, tiny_imagenet_val
from image2video.data.source import IMAGENET_MEAN, IMAGENET_STD, LoadOptions, Pool, some
from image2video.data.transforms import TrainTransform, eval_transform
from image2video.errors import InputError, MissingError
from image2video.runs.texts import user_path


def load_folder(rest: str, options: LoadOptions) -> Pool:
    """train/ and val/ with one sub-folder per class; val/ is the test set. Tiny-ImageNet's own layout is understood.

    A part that is not asked for need not be there: the classes are then those of train/ where there is one, else those
    of val/. Where the test set alone is asked for and there is neither of them, the folder itself is it.
    """
    root = user_path(rest)
    if not os.path.isdir(root):
        raise MissingError(f"no folder {root}; folder:PATH needs PATH/train and PATH/val with one sub-folder per class")
    train = test = None
    classes = class_folders(root / "train")
    if "train" in options.parts:
        classes, paths, labels = scan_folder(root / "train")
        train = (ImageFiles(tuple(paths)), torch.tensor(labels))
    if "test" in options.parts:
        flat = options.parts == ("test",) and not any((root / part).is_dir() for part in ("train", "val"))
        classes, paths, labels = _test_files(root if flat else root / "val", classes, alone=train is None)
        test = (ImageFiles(tuple(paths)), torch.tensor(labels))
    return loaded_pool(train, test, classes, options)


def _test_files(val: Path, classes: tuple[str, ...], *, alone: bool) -> tuple[tuple[str, ...], list[str], list[int]]:
    """(classes, paths, labels) of val/; where it is read `alone`, train/ may be missing, or have more classes."""
    if (val / "val_annotations.txt").is_file():
        return tiny_imagenet_val(val, classes or annotated_classes(val))
    own, paths, labels = scan_folder(val)
    same = set(own) <= set(classes) if alone and classes else own == classes or alone
    if not same:
        raise InputError(
            f"train/ and val/ of {val.parent} hold different classes: only in train/ "
            f"{some(set(classes) - set(own))}, only in val/ {some(set(own) - set(classes))}"
        )
    classes = classes or own
    return classes, paths, [classes.index(own[label]) for label in labels]


def loaded_pool(
    train: tuple[Any, torch.Tensor] | None,
    test: tuple[Any, torch.Tensor] | None,
    classes: tuple[str, ...],
    options: LoadOptions,
) -> Pool:
    """Sets over images that are read when needed, with the transforms of `options`; RGB, 224 pixels by default."""
    size, resizing = options.file_size(224), options.resizing()
    check_images_memory(1, 3, size, bytes_per_value=4)
    mean = options.colours("mean", 3) or IMAGENET_MEAN
    std = options.colours("std", 3) or IMAGENET_STD
    if len(mean) != 3 or len(std) != 3:
        raise InputError(f"image files are read as RGB: mean and std need 3 values, got {len(mean)} and {len(std)}")
    flip = True if options.flip is None else options.flip
    loading = Loading(
        train=TrainTransform(size, mean, std, flip, options.augment, resizing.interpolation),
        eval=eval_transform(size, mean, std, resizing),
        workers=min(8, (os.cpu_count() or 1) - 1) if options.workers is None else options.workers,
    )
    sets = [None if part is None else LoadedSet(*part, loading) for part in (train, test)]
    return Pool(sets[0], sets[1], classes, (3, size, size), mean, std, resizing=resizing)
