"""Sources whose images fit in memory: the embedded digits, scenes of them, and arrays in an .npz file."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from image2video.data.absent import PARTS
from image2video.data.digit_scenes import CLASSES as SCENE_CLASSES
from image2video.data.digit_scenes import load_digit_scenes
from image2video.data.digits import load_digits
from image2video.data.limits import check_images_memory, check_npz_memory
from image2video.data.memory import CropFlip, MemorySet
from image2video.data.npz import NpzArrays
from image2video.data.resizing import Resizing
from image2video.data.source import LoadOptions, Pool
from image2video.errors import InputError, InputTypeError, MissingError
from image2video.runs.texts import user_path

Labelled = tuple[Tensor, Tensor]

_KEYS = ("x_train", "y_train", "x_test", "y_test")


def load_digits_source(rest: str, options: LoadOptions) -> Pool:
    """The embedded digits; never mirrored (a mirrored 2 is no digit), border filled with their black ground."""
    if options.flip:
        raise InputError("flip=True makes no sense for digits: a mirrored digit is another shape")
    _check_no_resize(options, "digits")
    train, test = load_digits(options.memory_size or 16)
    augment = CropFlip(pad=max(1, train[0].shape[-1] // 8), flip=False, padding="zeros")
    return memory_pool(train, test, tuple("0123456789"), augment, options, measured=train[0])


def load_digit_scenes_source(rest: str, options: LoadOptions) -> Pool:
    """Scenes of several digits with a class per pixel; nothing is cropped or mirrored in training."""
    if options.flip:
        raise InputError("flip=True makes no sense for digit_scenes: a mirrored digit is another shape")
    _check_no_resize(options, "digit_scenes")
    train, test = load_digit_scenes(options.memory_size or 48)
    return memory_pool(train, test, SCENE_CLASSES, None, options, task="segmentation", measured=train[0])


def _check_no_resize(options: LoadOptions, name: str) -> None:
    """Digits are drawn at every size from the 8×8 that there are."""
    if options.resize is not None:
        raise InputError(f"resize={options.resize!r}: no effect on {name}, which are made at the size asked for")


def load_npz(rest: str, options: LoadOptions) -> Pool:
    """Arrays of an .npz file; read without pickle."""
    path = user_path(rest)
    if not os.path.isfile(path):
        raise MissingError(f"no file {path}; npz:PATH needs a file that numpy.savez wrote with {', '.join(_KEYS)}")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is no .npz file; numpy.savez writes one with {', '.join(_KEYS)}")
    check_npz_memory(path)
    parts = {part: _read(path, part) for part in PARTS if part in options.parts}
    train, test = parts.get("train"), parts.get("test")
    if train is not None and test is not None and train[0].shape[1:] != test[0].shape[1:]:
        raise InputError(f"{path}: training images are {_size(train)}, test images {_size(test)}; they must be alike")
    labelled = test if train is None else train
    assert labelled is not None, "a loader is asked for a part at least"
    count = int(labelled[1].max()) + 1
    if train is not None and count > len(labelled[1]):  # before a name is made for every class
        raise InputError(
            f"{path}: the training labels go up to {count - 1} with {len(labelled[1])} images; every class needs an "
            "image"
        )
    names = _names(path)
    if names is not None and (len(names) < count or (len(names) > count and train is not None)):
        raise InputError(f"{path} names {len(names)} classes; training labels of 0 … {count - 1} need {count}")
    classes = tuple(names) if names is not None else tuple(str(label) for label in range(count))
    augment = default_crop_flip(labelled, options)
    measured = None
    if train is None and not options.knows_colours(labelled[0].shape[1]):
        measured = _read(path, "train")[0]
    return memory_pool(train, test, classes, augment, options, measured=measured)


def _read(path: Path, part: str) -> Labelled:
    """The images and labels of a part."""
    images, labels = f"x_{part}", f"y_{part}"
    with NpzArrays(path) as file:
        missing = [key for key in (images, labels) if key not in file.files]
        if not missing:
            return _labelled(file[images], file[labels], part, path)
        held = ", ".join(file.files)[:300] or "nothing"
    raise InputError(
        f"{path} lacks {', '.join(missing)}; it holds {held} (mean and std are measured on the training images, unless "
        "they are given or the weights' run knows them)"
    )


def _names(path: Path) -> list[str] | None:
    """The names of the classes, where the file has them."""
    with NpzArrays(path) as file:
        return [str(name) for name in file["classes"].flat] if "classes" in file.files else None


def default_crop_flip(train: Labelled, options: LoadOptions, *, flip: bool = True) -> CropFlip:
    """The crop and flip for images of this size: a pad of an eighth of the shorter side, as for CIFAR (4 of 32)."""
    shorter = options.memory_size or min(train[0].shape[-2:])
    return CropFlip(pad=shorter // 8, flip=flip if options.flip is None else options.flip)


def memory_pool(
    train: Labelled | None,
    test: Labelled | None,
    classes: tuple[str, ...],
    augment: CropFlip | None,
    options: LoadOptions,
    *,
    task: str = "classification",
    measured: Tensor | None = None,
) -> Pool:
    """Checks the labels, resizes if asked, measures mean and deviation of the training images, and makes the sets.

    measured: the training images where no part holds them.
    """
    options.check_memory()
    wanted = {"train": train, "test": test}
    parts = {part: found for part, found in wanted.items() if found is not None and part in options.parts}
    check_labels({part: labels for part, (_, labels) in parts.items()}, classes)
    if options.memory_size is not None:
        count = sum(len(labels) for _, labels in parts.values())
        check_images_memory(count, int(next(iter(parts.values()))[0].shape[1]), options.memory_size)
    parts = {part: _resized(found, options) for part, found in parts.items()}
    channels, height, width = (int(n) for n in next(iter(parts.values()))[0].shape[1:])
    mean, std = options.colours("mean", channels), options.colours("std", channels)
    if mean is None or std is None:
        if "train" in parts:
            images = parts["train"][0]
        else:
            assert measured is not None, "loaders give the training images where mean and std are not known"
            images = _resized((measured, torch.zeros(0)), options)[0]
        own = _statistics(images)
        mean, std = mean or own[0], std or own[1]
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise InputError(f"{name} needs a value for each of {channels} channels, got {len(values)}")
    sets: dict[str, MemorySet] = {}
    for part, found in parts.items():
        policy = options.augment if part == "train" else None
        sets[part] = MemorySet(*found, mean=mean, std=std, augment=augment, policy=policy)
    mode, resizing = options.memory_interpolation, None
    if options.memory_size is not None and mode != "bilinear":
        resizing = Resizing(mode, crop_fraction=1.0, crop_mode="squash")
    size = (channels, height, width)
    return Pool(sets.get("train"), sets.get("test"), classes, size, mean, std, task, resizing)


def check_labels(parts: Mapping[str, Tensor], classes: tuple[str, ...]) -> None:
    """Labels of images or pixels must be 0 … K−1, and every class must be in a training image; else `InputError`."""
    count = len(classes)
    for part, labels in parts.items():
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= count:
            name = "training" if part == "train" else part
            raise InputError(f"{name} labels are {low} … {high}; with {count} classes they must be 0 … {count - 1}")
    if "train" in parts:
        empty = (torch.bincount(parts["train"].flatten(), minlength=count) == 0).nonzero().flatten().tolist()
        if empty:
            raise InputError(f"no training image has label {empty[0]}; {len(empty)} of {count} classes are empty")


def _labelled(images: np.ndarray, labels: np.ndarray, part: str, path: Path) -> Labelled:
    """Arrays of a file as tensors, once they are images with one label each."""
    what = f"{path}: x_{part} {images.shape} {images.dtype}, y_{part} {labels.shape} {labels.dtype}"
    if images.dtype != np.uint8:
        raise InputTypeError(f"{what}; images must be uint8, 0 … 255")
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] not in (1, 3, 4)):
        raise InputError(f"{what}; images must be N×H×W or N×H×W×C with 1, 3 or 4 channels")
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputTypeError(f"{what}; labels must be whole numbers")
    if labels.shape != images.shape[:1]:
        raise InputError(f"{what}; there must be one label per image")
    if len(images) == 0:
        raise InputError(f"{what}; there is no image")
    if images.ndim == 3:
        images = images[..., None]
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    values = torch.from_numpy(labels.astype(np.int64))
    if int(values.min()) < 0:
        raise InputError(f"{what}; the labels go from {int(values.min())}, they must start at 0")
    return pixels, values


def _resized(data: Labelled, options: LoadOptions) -> Labelled:
    """The images at another size; their own where none is asked for or known."""
    images, labels = data
    size = options.memory_size
    if size is None or images.shape[-2:] == (size, size):
        return data
    mode = options.memory_interpolation
    antialias = mode in ("bilinear", "bicubic")
    parts = []
    for part in images.split(1024):  # all images at once would need four bytes a pixel
        resized = interpolate(part.float(), (size, size), mode=mode, antialias=antialias)
        parts.append(resized.round().clamp(0, 255).to(torch.uint8))
    return torch.cat(parts), labels


def _statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per channel in 0 … 1, exactly, from the histogram of the 256 grey levels."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in range(images.shape[1]):
        share = torch.bincount(images[:, channel].flatten(), minlength=256).double()
        share /= share.sum()
        centre = (share * levels).sum()
        mean.append(float(centre))
        std.append(max(float((share * (levels - centre) ** 2).sum().sqrt()), 1e-3))  # a constant channel stays finite
    return tuple(mean), tuple(std)


def _size(data: Labelled) -> str:
    channels, height, width = data[0].shape[1:]
    return f"{height}×{width}×{channels}"
