"""The images of a mmsegmentation config: which data sets it names, and which of their images are held out."""

from __future__ import annotations

import copy
import hashlib
import itertools
import os
from collections.abc import Iterator, MutableMapping
from typing import Any

import torch
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS

from image2video.data.seeds import seeded_generator
from image2video.data.splits import fraction_count
from image2video.errors import InputError, UnsupportedError
from image2video.integrations.openmmlab.search_config import type_name
from image2video.integrations.openmmlab.search_reading import check_depths

LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
Leaf = MutableMapping[str, Any]


def leaves(dataset: Leaf, key: str) -> Iterator[tuple[str, Leaf]]:
    """The data sets inside those that repeat or join others, with their keys.

    Raises `UnsupportedError` for any other data set around data sets: it mixes images.
    """
    kind = type_name(dataset.get("type"))
    if kind == "RepeatDataset":
        yield from leaves(dataset["dataset"], f"{key}.dataset")
    elif kind == "ConcatDataset":
        for i, part in enumerate(dataset["datasets"]):
            yield from leaves(part, f"{key}.datasets[{i}]")
    elif "dataset" in dataset or "datasets" in dataset:
        raise UnsupportedError(f"{key}.type={kind!r} mixes images; needed a data set, ConcatDataset or RepeatDataset")
    else:
        yield key, dataset


def loader_leaves(config: Any, loader: str) -> list[tuple[str, Leaf]]:
    """The data sets of a data loader of the config, with their keys; raises `InputError` where it has none."""
    if not (config.get(loader) and config[loader].get("dataset")):
        raise InputError(f"the config needs {loader}.dataset, got none")
    return list(leaves(config[loader]["dataset"], f"{loader}.dataset"))


def image_paths(leaf: Leaf, key: str) -> list[str]:
    """The paths of a data set's images, in its order.

    Raises `InputError` where it cannot be built, or a file has more than 8 bits.
    """
    try:
        with DefaultScope.overwrite_default_scope("mmseg"):
            items = DATASETS.build({**leaf, "pipeline": [], "serialize_data": False})
    except Exception as error:
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise InputError(f"{key} ({type_name(leaf.get('type'))}) cannot be read: {what}") from error
    if len(items) == 0:
        raise InputError(f"{key} ({type_name(leaf.get('type'))}) holds no image; check data_prefix and img_suffix")
    infos = [items.get_data_info(i) for i in range(len(items))]
    for info in infos:
        check_depths(info)
    return [info["img_path"] for info in infos]


def hold_out(config: Any, *, train_images: int | None, holdout: float, seed: int) -> None:
    """Set a share of a config's training images aside, as its `val_dataloader`, read as the test images are.

    `indices` of every training data set are those of the images that are trained on. Without a share there is no
    `val_dataloader`. Raises `InputError` for training images that cannot be read, that are too few, or of which the
    config takes some by `indices` of its own.
    """
    found = loader_leaves(config, "train_dataloader")
    for key, leaf in found:
        if leaf.get("indices") is not None:
            raise InputError(f"{key}.indices is in the way of held-out images; say train_images instead")
    paths = [image_paths(leaf, key) for key, leaf in found]
    kept, held = split(paths, train_images=train_images, holdout=holdout, seed=seed)
    pipeline = loader_leaves(config, "test_dataloader")[0][1]["pipeline"]
    parts = []
    for (_, leaf), train, rest in zip(found, kept, held, strict=True):
        if rest:
            parts.append({**copy.deepcopy(dict(leaf)), "indices": rest, "pipeline": copy.deepcopy(pipeline)})
        leaf["indices"] = train
    config.train_dataloader["dataset"] = _without_empty(config.train_dataloader["dataset"])
    if not parts:
        config.val_dataloader = config.val_cfg = config.val_evaluator = None
        return
    config.val_dataloader = copy.deepcopy(config.test_dataloader)
    config.val_dataloader["dataset"] = parts[0] if len(parts) == 1 else {"type": "ConcatDataset", "datasets": parts}


def describe(config: Any) -> dict[str, Any]:
    """What the images of a config are: how many of each part, and a mark of their names and sizes on disk."""
    marks, counts = hashlib.sha256(), dict.fromkeys(LOADERS, 0)
    for loader in (name for name in LOADERS if config.get(name)):
        for key, leaf in loader_leaves(config, loader):
            root = str(leaf.get("data_root") or "")
            for path in image_paths(leaf, key):
                counts[loader] += 1
                marks.update(f"{loader} {os.path.relpath(path, root)} {os.path.getsize(path)}\n".encode())
    named = {f"{loader.removesuffix('_dataloader')}_images": count for loader, count in counts.items()}
    return named | {"files": marks.hexdigest()[:16]}


def _without_empty(dataset: Any) -> Any:
    """A data set without joined parts of which no image is used, which mmengine cannot hold."""
    if "datasets" in dataset:
        parts = [_without_empty(part) for part in dataset["datasets"]]
        dataset["datasets"] = [part for part in parts if part is not None]
        return dataset if dataset["datasets"] else None
    if "dataset" in dataset:
        dataset["dataset"] = _without_empty(dataset["dataset"])
        return None if dataset["dataset"] is None else dataset
    return dataset if dataset["indices"] else None


def split(
    sets: list[list[str]], *, train_images: int | None, holdout: float, seed: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Which images of each data set are trained on, and which are held out: two lists of indices per data set.

    `train_images` of all are drawn, None for all, and the share `holdout` of those is held out. An image that several
    data sets list is on one side everywhere. Raises `InputError` where there are too few.
    """
    names = list(dict.fromkeys(itertools.chain(*sets)))  # each image once, in a fixed order
    count = len(names) if train_images is None else train_images
    if not 0 < count <= len(names):
        raise InputError(f"train_images={train_images}: there are {len(names)} training images")
    order = torch.randperm(len(names), generator=seeded_generator(seed)).tolist()
    drawn = [names[place] for place in order[:count]]
    held_out = fraction_count(count, holdout) if holdout else 0
    held, kept = set(drawn[:held_out]), set(drawn[held_out:])
    return [_places(paths, kept) for paths in sets], [_places(paths, held) for paths in sets]


def _places(paths: list[str], chosen: set[str]) -> list[int]:
    """Where the chosen ones stand in a list."""
    return [place for place, path in enumerate(paths) if path in chosen]
