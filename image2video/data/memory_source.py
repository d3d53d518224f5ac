"""Sources whose images fit in memory: the embedded digits, scenes of them, and arrays in an .npz file."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from image2video.data.digit_scenes import CLASSES as SCENE_CLASSES
from image2video.data.digit_scenes import load_digit_scenes
from image2video.data.digits import load_digits
from image2video.data.limits import check_images_memory, check_npz_memory
from image2video.data.memory import CropFlip, MemorySet
from image2video.data.npz import NpzArrays
from image2video.data.source import LoadOptions, Pool
from image2video.errors import InputError, InputTypeError, MissingError
from image2video.runs.texts import user_path

Labelled = tuple[Tensor, Tensor]

_KEYS = ("x_train", "y_train", "x_test", "y_test")


def load_digits_source(rest: str, options: LoadOptions) -> Pool:
    """The embedded digits; never mirrored (a mirrored 2 is no digit), border filled with their black ground."""
    if options.flip:
        raise InputError("flip=True makes no sense for digits: a mirrored digit is another shape")
    train, test = load_digits(options.image_size or 16)
    augment = CropFlip(pad=max(1, train[0].shape[-1] // 8), flip=False, padding="zeros")
    return memory_pool(train, test, tuple("0123456789"), augment, options)


def load_digit_scenes_source(rest: str, options: LoadOptions) -> Pool:
    """Scenes of several digits with a class per pixel; nothing is cropped or mirrored in training."""
    if options.flip:
        raise InputError("flip=True makes no sense for digit_scenes: a mirrored digit is another shape")
    train, test = load_digit_scenes(options.image_size or 48)
    return memory_pool(train, test, SCENE_CLASSES, None, options, task="segmentation")


def load_npz(rest: str, options: LoadOptions) -> Pool:
    """Arrays of an .npz file; read without pickle."""
    path = user_path(rest)
    if not os.path.isfile(path):
        raise MissingError(f"no file {path}; npz:PATH needs a file that numpy.savez wrote with {', '.join(_KEYS)}")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is no .npz file; numpy.savez writes one with {', '.join(_KEYS)}")
    check_npz_memory(path)
    with NpzArrays(path) as file:
        missing = [key for key in _KEYS if key not in file.files]
        if missing:
            raise InputError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(file.files)[:300] or 'nothing'}")
        arrays = {key: file[key] for key in _KEYS}
        names = [str(name) for name in file["classes"].flat] if "classes" in file.files else None
    train = _labelled(arrays["x_train"], arrays["y_train"], "train", path)
    test = _labelled(arrays["x_test"], arrays["y_test"], "test", path)
    if train[0].shape[1:] != test[0].shape[1:]:
        raise InputError(f"{path}: training images are {_size(train)}, test images {_size(test)}; they must be alike")
    count = int(train[1].max()) + 1
    if count > len(train[1]):  # before a name is made for every class
        raise InputError(
            f"{path}: the training labels go up to {count - 1} with {len(train[1])} images; every class needs an image"
        )
    if names is not None and len(names) != count:
        raise InputError(f"{path} names {len(names)} classes; training labels of 0 … {count - 1} need {count}")
    classes = tuple(names) if names is not None else tuple(str(label) for label in range(count))
    return memory_pool(train, test, classes, default_crop_flip(train, options), options)


def default_crop_flip(train: Labelled, options: LoadOptions, *, flip: bool = True) -> CropFlip:
    """The crop and flip for images of this size: a pad of an eighth of the shorter side, as for CIFAR (4 of 32)."""
    shorter = options.image_size or min(train[0].shape[-2:])
    return CropFlip(pad=shorter // 8, flip=flip if options.flip is None else options.flip)


def memory_pool(
    train: Labelled,
    test: Labelled,
    classes: tuple[str, ...],
    augment: CropFlip | None,
    options: LoadOptions,
    *,
    task: str = "classification",
) -> Pool:
    """Checks the labels, resizes if asked, measures mean and deviation of the training images, and makes the sets."""
    check_labels(train[1], test[1], classes)
    if options.image_size is not None:
        check_images_memory(len(train[1]) + len(test[1]), int(train[0].shape[1]), options.image_size)
    train, test = (_resized(images, options.image_size) for images in (train, test))
    mean, std = _statistics(train[0])
    mean, std = options.mean or mean, options.std or std
    channels, height, width = (int(n) for n in train[0].shape[1:])
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise InputError(f"{name} needs a value for each of {channels} channels, got {len(values)}")
    train_set = MemorySet(*train, mean=mean, std=std, augment=augment, policy=options.augment)
    test_set = MemorySet(*test, mean=mean, std=std, augment=augment)
    return Pool(train_set, test_set, classes, (channels, height, width), mean, std, task)


def check_labels(train: Tensor, test: Tensor, classes: tuple[str, ...]) -> None:
    """Labels of images or pixels must be 0 … K−1, and every class must be in a training image; else `InputError`."""
    count = len(classes)
    for part, labels in (("training", train), ("test", test)):
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= count:
            raise InputError(f"{part} labels are {low} … {high}; with {count} classes they must be 0 … {count - 1}")
    empty = (torch.bincount(train.flatten(), minlength=count) == 0).nonzero().flatten().tolist()
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


def _resized(data: Labelled, size: int | None) -> Labelled:
    """The images at another size; their own where none is asked for."""
    images, labels = data
    if size is None or images.shape[-2:] == (size, size):
        return data
    parts = []
    for part in images.split(1024):  # all images at once would need four bytes a pixel
        resized = interpolate(part.float(), (size, size), mode="bilinear", antialias=True)
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
