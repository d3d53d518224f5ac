"""The source `folder:PATH`: image files in train/ and val/."""

from __future__ import annotations

import os
from typing import Any

import torch

from image2video.data.folder import ImageFiles, LoadedSet, Loading
from image2video.data.limits import check_images_memory
from image2video.data.scan import scan_folder, tiny_imagenet_val
from image2video.data.source import IMAGENET_MEAN, IMAGENET_STD, LoadOptions, Pool
from image2video.data.transforms import TrainTransform, eval_transform
from image2video.errors import InputError, MissingError
from image2video.runs.texts import user_path


def load_folder(rest: str, options: LoadOptions) -> Pool:
    """train/ and val/ with one sub-folder per class; val/ is the test set. Tiny-ImageNet's own layout is understood."""
    root = user_path(rest)
    if not os.path.isdir(root):
        raise MissingError(f"no folder {root}; folder:PATH needs PATH/train and PATH/val with one sub-folder per class")
    classes, paths, labels = scan_folder(root / "train")
    val = root / "val"
    if (val / "val_annotations.txt").is_file():
        _, test_paths, test_labels = tiny_imagenet_val(val, classes)
    else:
        test_classes, test_paths, test_labels = scan_folder(val)
        if test_classes != classes:
            raise InputError(
                f"train/ and val/ of {root} hold different classes: only in train/ "
                f"{_some(set(classes) - set(test_classes))}, only in val/ {_some(set(test_classes) - set(classes))}"
            )
    train_set = (ImageFiles(tuple(paths)), torch.tensor(labels))
    return loaded_pool(train_set, (ImageFiles(tuple(test_paths)), torch.tensor(test_labels)), classes, options)


def loaded_pool(
    train: tuple[Any, torch.Tensor], test: tuple[Any, torch.Tensor], classes: tuple[str, ...], options: LoadOptions
) -> Pool:
    """Sets over images that are read when needed, with the transforms of `options`; RGB, 224 pixels by default."""
    size = options.image_size or 224
    check_images_memory(1, 3, size, bytes_per_value=4)
    mean, std = options.mean or IMAGENET_MEAN, options.std or IMAGENET_STD
    if len(mean) != 3 or len(std) != 3:
        raise InputError(f"image files are read as RGB: mean and std need 3 values, got {len(mean)} and {len(std)}")
    flip = True if options.flip is None else options.flip
    loading = Loading(
        train=TrainTransform(size, mean, std, flip, options.augment),
        eval=eval_transform(size, mean, std),
        workers=min(8, (os.cpu_count() or 1) - 1) if options.workers is None else options.workers,
    )
    return Pool(LoadedSet(*train, loading), LoadedSet(*test, loading), classes, (3, size, size), mean, std)


def _some(names: set[str]) -> str:
    """The first five of these names; `none` where there are none."""
    if not names:
        return "none"
    listed = ", ".join(sorted(names)[:5])
    return f"{listed} … ({len(names)} in all)" if len(names) > 5 else listed
