"""Reads items of a mmsegmentation data set as image and labels; one seed decides all random draws of an item."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from torch import Tensor
from torch.nn.functional import pad

from image2video.data.image_file import check_eight_bits
from image2video.functional import InputError, UnsupportedError

Size = tuple[int, int]


@dataclass(frozen=True)
class Preparation:
    """What a data preprocessor does to one image, and what labels may hold.

    Attributes:
        mean: per channel in 0 … 255; 0, with 1 as std, for no normalisation.
        std: goes with `mean`.
        swap: whether the three channels are reversed (BGR to RGB).
        size: (height, width) that images are padded to, right and below; None for none.
        pad_val: what images are padded with, after normalisation.
        seg_pad_val: what labels are padded with.
        num_classes: labels are below it.
        ignore_index: the label that does not count.

    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    swap: bool
    size: Size | None
    pad_val: float
    seg_pad_val: int
    num_classes: int
    ignore_index: int

    def __call__(self, sample: Any) -> tuple[Tensor, Tensor]:
        """An item of a data set as an image `(C, H, W)` float32 and its labels `(H, W)` int64.

        Raises `InputError` for items without image or labels, and for labels that are no class.
        """
        if not isinstance(sample, dict) or "inputs" not in sample or "data_samples" not in sample:
            raise InputError("the pipeline gives no inputs and data_samples; it must end with PackSegInputs")
        found = sample["data_samples"]
        others = sorted(set(found.keys()) - {"gt_sem_seg"})
        if others:
            raise UnsupportedError(f"the pipeline makes {', '.join(others)}; the search knows labels of pixels alone")
        if "gt_sem_seg" not in found:
            raise InputError("the pipeline gives no labels; it must hold LoadAnnotations")
        labels = found.gt_sem_seg.data.long().squeeze(0)
        self._check(labels)
        image = sample["inputs"].float()
        if self.swap and len(image) == 3:
            image = image[[2, 1, 0]]
        image = (image - torch.tensor(self.mean).view(-1, 1, 1)) / torch.tensor(self.std).view(-1, 1, 1)
        if self.size is None:
            return image, labels
        below, right = (max(0, n - m) for n, m in zip(self.size, image.shape[1:], strict=True))
        edge = (0, right, 0, below)
        return pad(image, edge, value=self.pad_val), pad(labels, edge, value=self.seg_pad_val)

    def _check(self, labels: Tensor) -> None:
        """Refuse labels that are neither a class nor ignored."""
        known = labels[labels != self.ignore_index]
        if known.numel() and not 0 <= int(known.min()) <= int(known.max()) < self.num_classes:
            raise InputError(
                f"labels from {int(known.min())} to {int(known.max())}, but model.decode_head.num_classes="
                f"{self.num_classes} with ignore_index={self.ignore_index}; set num_classes, reduce_zero_label or the "
                "data set's metainfo"
            )


class FitInside(BaseTransform):
    """Resize image and labels so that they fit into (height, width) and touch it, keeping their shape."""

    def __init__(self, size: Size) -> None:
        self.size = size

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """The item with `img` and the maps in `seg_fields` resized: bilinear, and nearest for labels."""
        height, width = results["img"].shape[:2]
        scale = min(self.size[0] / height, self.size[1] / width)
        h, w = (min(n, max(1, round(scale * m))) for n, m in zip(self.size, (height, width), strict=True))
        results["img"] = mmcv.imresize(results["img"], (w, h))
        results["img_shape"] = (h, w)
        for key in results.get("seg_fields", []):
            results[key] = mmcv.imresize(results[key], (w, h), interpolation="nearest")
        return results


@dataclass(frozen=True)
class Reading:
    """A data set with its pipeline, and what is done to an item of it."""

    items: Any
    prepare: Preparation

    def __call__(self, index: int, seed: int) -> tuple[Tensor, Tensor]:
        """Image and labels of item `index`, all draws by `seed`; raises `InputError` that names the file."""
        with seeded_globals(seed):
            try:
                check_depths(item_files(self.items, index))
                return self.prepare(self.items[index])
            except Exception as error:
                kind = type(error) if isinstance(error, InputError | UnsupportedError) else InputError
                what = str(error) if kind is type(error) else f"{type(error).__name__}: {error}"
                raise kind(f"{_path_of(self.items, index)}: {what}") from error


def item_files(items: Any, index: int) -> dict[str, Any]:
    """What an item of a data set says of its files; nothing where the data set does not say."""
    try:
        return dict(items.get_data_info(index))
    except (AttributeError, KeyError, TypeError):
        return {}


def check_depths(item: Mapping[str, Any]) -> None:
    """Refuse, as `InputError`, an image or labels of more than 8 bits: mmsegmentation cuts them in silence."""
    for key, what in (("img_path", "its shades"), ("seg_map_path", "the numbers of classes")):
        if isinstance(item.get(key), str):
            check_eight_bits(item[key], what)


@contextmanager
def seeded_globals(seed: int) -> Iterator[None]:
    """The global generators of python, numpy and torch (CPU), which transforms draw from, seeded inside alone."""
    python, array = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(array)


def _path_of(items: Any, index: int) -> str:
    """The file of an item, or its number where the data set does not say."""
    return str(item_files(items, index).get("img_path", f"item {index}"))
