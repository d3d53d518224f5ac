"""The source `torchvision:NAME@ROOT`: a classification set of torchvision.datasets that is already on disk."""

from __future__ import annotations

import difflib
import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from image2video.data.absent import PARTS
from image2video.data.folder_source import loaded_pool
from image2video.data.memory_source import check_labels, default_crop_flip, memory_pool
from image2video.data.source import LoadOptions, Pool
from image2video.errors import InputError, MissingError, UnsupportedError
from image2video.runs.texts import user_path

# The names of the training and test parts where they are not "train" and "test".
_PARTS = {"ImageNet": ("train", "val"), "Imagenette": ("train", "val"), "OxfordIIITPet": ("trainval", "test")}
_PICTURES_OF_SIGNS = frozenset({"MNIST", "FashionMNIST", "KMNIST", "EMNIST", "QMNIST", "USPS", "SVHN", "GTSRB"})


def load_torchvision(rest: str, options: LoadOptions) -> Pool:
    """NAME@ROOT; small images (arrays in `.data`) live in memory, others are read when needed.

    Nothing is downloaded: what is not in ROOT is a `MissingError` with the line that fetches it.
    """
    name, _, root = rest.partition("@")
    if not name or not root:
        raise InputError(f"torchvision:{rest} must be written as torchvision:NAME@ROOT, as in torchvision:CIFAR10@data")
    place = user_path(root)
    parts = {part: _part(name, place, PARTS.index(part)) for part in PARTS if part in options.parts}
    labels = {part: _labels(found, name) for part, found in parts.items()}
    one = next(iter(parts.values()))
    classes, flip = _classes(one), name not in _PICTURES_OF_SIGNS
    if isinstance(getattr(one, "data", None), np.ndarray | Tensor):
        pairs = {part: (_pixels(found.data, name), labels[part]) for part, found in parts.items()}
        augment = default_crop_flip(next(iter(pairs.values())), options, flip=flip)
        train, images = pairs.get("train"), next(iter(pairs.values()))[0]
        measured = None
        if train is None and not options.knows_colours(images.shape[1]):
            measured = _pixels(_part(name, place, 0).data, name)
        return memory_pool(train, pairs.get("test"), classes, augment, options, measured=measured)
    check_labels(labels, classes)
    if options.flip is None and not flip:
        options = replace(options, flip=False)
    files = {part: (_Images(found), labels[part]) for part, found in parts.items()}
    return loaded_pool(files.get("train"), files.get("test"), classes, options)


class _Images:
    """The images of a torchvision set, without the labels."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        try:
            return self._dataset[index][0]
        except (OSError, SyntaxError) as error:
            raise InputError(f"cannot read image {index} of {type(self._dataset).__name__}: {error}") from error


def _part(name: str, root: Path, place: int) -> Any:
    """The training (place 0) or the test part (1) of a set that is on disk."""
    import torchvision.datasets as sets

    factory = getattr(sets, name, None)
    names = [n for n in dir(sets) if inspect.isclass(getattr(sets, n)) and _has_parts(getattr(sets, n))]
    if factory is None or name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(names)}"
        raise InputError(f"torchvision.datasets has no classification set {name!r} with train and test parts; {hint}")
    parameters = inspect.signature(factory).parameters
    parts = _PARTS.get(name, ("train", "test"))
    choice: dict[str, Any] = {"train": place == 0} if "train" in parameters else {"split": parts[place]}
    if name == "EMNIST":
        raise UnsupportedError("EMNIST has six splits of its own; write the one you want to an .npz file (npz:PATH)")
    try:
        return factory(str(root), **choice)
    except (RuntimeError, OSError, ModuleNotFoundError) as error:
        how = "this set has to be fetched by hand"
        if "download" in parameters:
            how = f'in Python: torchvision.datasets.{name}("{root}", download=True)'
        raise MissingError(
            f"torchvision.datasets.{name} was not found in {root}: {error} (image2video downloads nothing; {how})"
        ) from error


def _has_parts(factory: Any) -> bool:
    """Whether a class of torchvision has a training and a test part."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return False
    return "root" in parameters and ("train" in parameters or "split" in parameters)


def _labels(dataset: Any, name: str) -> Tensor:
    """The labels of a set; torchvision calls them by several names."""
    for attribute in ("targets", "labels", "_labels"):
        values = getattr(dataset, attribute, None)
        if values is not None and len(values) == len(dataset):
            return torch.as_tensor(np.asarray(values), dtype=torch.int64)
    samples = getattr(dataset, "samples", None) or getattr(dataset, "_samples", None)
    if samples:
        return torch.tensor([int(label) for _, label in samples])
    raise UnsupportedError(f"torchvision.datasets.{name} keeps no list of labels; write it as folders or as .npz")


def _classes(dataset: Any) -> tuple[str, ...]:
    """The names of the classes; their numbers where they have none."""
    names = getattr(dataset, "classes", None)
    if names:  # ImageNet gives several names per class
        return tuple(n if isinstance(n, str) else n[0] for n in names)
    return tuple(str(label) for label in range(int(_labels(dataset, type(dataset).__name__).max()) + 1))


def _pixels(data: Any, name: str) -> Tensor:
    """The images of a set as `(N, C, H, W)`."""
    images = torch.as_tensor(data)
    if images.ndim == 3:  # (N, H, W)
        return images.unsqueeze(1)
    if images.ndim == 4 and images.shape[1] in (1, 3):  # SVHN and STL10 are stored with channels first
        return images
    if images.ndim == 4 and images.shape[-1] in (1, 3):
        return images.permute(0, 3, 1, 2).contiguous()
    raise UnsupportedError(
        f"torchvision.datasets.{name} must store images (N, H, W), or with 1 or 3 channels; got {tuple(images.shape)}"
    )
