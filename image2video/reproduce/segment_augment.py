"""Augmentation policies in the training pipelines of mmsegmentation: on images and their labels."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmseg.registry import TRANSFORMS

from image2video.clip.colours import Colours
from image2video.data import Augmentation
from image2video.data.random_frame import RandomFrame
from image2video.errors import InputError
from image2video.reproduce.labelled import augment_labelled, frame_labelled

_AFTER = ("GenerateEdge", "Pad")
"""Transforms between a policy and the packing: edges are those of the moved labels, and padding is no part of an image.
"""


@TRANSFORMS.register_module()
class AugmentationPolicy(BaseTransform):
    """A policy of `image2video.data.Augmentation` on the image and its label maps, in a training pipeline.

    Geometric ops move the labels as the image, by nearest neighbour; pixels that come in from outside are 255, which
    losses ignore. Photometric ops leave the labels, and so does an erased square. The image is the one that
    classification gets from the policy, in RGB. Draws come from torch's global CPU generator, which mmengine seeds in
    the process and in every worker of a dataloader, so a seeded run repeats itself.

    It stands after `LoadAnnotations`, crops and flips, and before padding and `PackSegInputs`:

        dict(type="AugmentationPolicy", policy="randaugment:ops=2,magnitude=9")

    policy: a text as `Augmentation.parse` reads it; mean, std: of the data preprocessor, per channel of RGB, 0 … 255;
    only `clips:SPACE` needs them. Raises `InputError` for what it does not know, and for an image or labels that are
    not uint8, or not of the same size.
    """

    def __init__(
        self,
        policy: str,
        mean: tuple[float, ...] = (123.675, 116.28, 103.53),
        std: tuple[float, ...] = (58.395, 57.12, 57.375),
    ) -> None:
        self.policy = Augmentation.parse(policy)
        self.colours = Colours(*(tuple(value / 255 for value in values) for values in (mean, std)))
        self._apply = self.policy.build(self.colours.mean, self.colours.std)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """`img (H, W, C)` BGR uint8 and the `seg_fields` `(H, W)` uint8, augmented in place of the old ones."""
        image, fields = results.get("img"), list(results.get("seg_fields", ()))
        _check(image, {name: results.get(name) for name in fields})
        assert isinstance(image, np.ndarray)
        self.policy.check_channels(image.shape[2])
        pixels = torch.from_numpy(image[..., ::-1].transpose(2, 0, 1).copy())
        labels = torch.from_numpy(np.stack([results[name] for name in fields]))
        if isinstance(self._apply, RandomFrame):
            pixels, labels = frame_labelled(self._apply, self.colours, pixels, labels)
        else:
            pixels, labels = augment_labelled(self._apply, pixels, labels)
        results["img"] = np.ascontiguousarray(pixels.numpy().transpose(1, 2, 0)[..., ::-1])
        results.update(zip(fields, labels.numpy(), strict=True))
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(policy={str(self.policy)!r})"


def _check(image: Any, labels: Mapping[str, Any]) -> None:
    """Refuse what is no image with labels of its size."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3:
        raise InputError(
            f"AugmentationPolicy needs an image (H, W, C) uint8, got {_shown(image)}; put it after the loading and "
            "before what makes the image floating point"
        )
    if not labels:
        raise InputError(
            "AugmentationPolicy moves labels with the image, and there are none; put it after their loading"
        )
    for name, found in labels.items():
        if not isinstance(found, np.ndarray) or found.dtype != np.uint8 or found.shape != image.shape[:2]:
            raise InputError(f"AugmentationPolicy needs {name} {image.shape[:2]} uint8, got {_shown(found)}")


def _shown(value: Any) -> str:
    """What came, in few words."""
    return f"{value.shape} {value.dtype}" if isinstance(value, np.ndarray) else f"{value!r:.40}"


def with_policy(config: Config, text: str | None) -> Config:
    """A copy of a config whose training images and labels are augmented by a policy, at the end of every pipeline.

    None changes nothing. Raises `InputError` for an unknown policy, and for a config with a training set whose pipeline
    has no `PackSegInputs`.
    """
    config = copy.deepcopy(config)
    if text is None:
        return config
    policy = {"type": AugmentationPolicy.__name__, "policy": str(Augmentation.parse(text)), **_colours(config)}
    AugmentationPolicy(**{key: value for key, value in policy.items() if key != "type"})  # raises what it raises
    loader = config.get("train_dataloader") or {}
    if "dataset" not in loader:
        raise InputError("a policy augments the images of train_dataloader.dataset: the config must have one")
    found = _packing(loader["dataset"], "train_dataloader.dataset")
    once = {id(dataset): dataset for dataset in found}  # data sets of a config may be one and the same object
    for dataset in once.values():
        pipeline = list(dataset["pipeline"])
        place = next(i for i, step in enumerate(pipeline) if _kind(step) == "PackSegInputs")
        while place and _kind(pipeline[place - 1]) in _AFTER:
            place -= 1
        dataset["pipeline"] = [*pipeline[:place], dict(policy), *pipeline[place:]]
    imports = dict(config.get("custom_imports") or {})
    names = imports.get("imports") or []
    names = [names] if isinstance(names, str) else list(names)
    # So that the config, as mmengine writes it out, can be read by others.
    config["custom_imports"] = {**imports, "imports": [*(n for n in names if n != __name__), __name__]}
    return config


def _packing(dataset: Mapping[str, Any], where: str) -> list[Any]:
    """The parts of a data set, however nested, whose pipelines end with `PackSegInputs`."""
    if any(_kind(step) == "PackSegInputs" for step in dataset.get("pipeline") or ()):
        return [dataset]
    inner = {}
    if "dataset" in dataset:
        inner[f"{where}.dataset"] = dataset["dataset"]
    for number, part in enumerate(dataset.get("datasets") or ()):
        inner[f"{where}.datasets[{number}]"] = part
    if not inner:
        raise InputError(f"{where} has no PackSegInputs in its pipeline; a policy needs one to stand before")
    found = []
    for place, part in inner.items():
        found += _packing(part, place)
    return found


def _kind(step: Any) -> str:
    """The name of a step's class, however the config states it."""
    kind = step.get("type", "")
    return kind.rpartition(".")[2] if isinstance(kind, str) else kind.__name__


def _colours(config: Config) -> dict[str, Any]:
    """How the config's network normalises its images, per channel of RGB; nothing where it does not."""
    told = (config.get("model") or {}).get("data_preprocessor") or {}
    if told.get("mean") is None or told.get("std") is None:
        return {"mean": (0.0,), "std": (255.0,)}
    colours = {}
    for key in ("mean", "std"):
        values = tuple(float(value) for value in told[key])
        # Without the swap the network works in BGR, and the policy in RGB.
        colours[key] = values if told.get("bgr_to_rgb") else values[::-1]
    return colours
