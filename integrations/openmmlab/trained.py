"""A trained segmentor of a mmsegmentation config with the images of its own loader: bare, and under any clip."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from colorsys import hsv_to_rgb
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS
from torch import Tensor, nn

from image2video.functional import Image2VideoError, InputError, MissingError, UnsupportedError
from image2video.integrations.openmmlab.options import VideoOptions
from image2video.integrations.openmmlab.own_images import OwnImages
from image2video.integrations.openmmlab.search_config import (
    build_items,
    class_names,
    read_config,
    same_images,
    test_pipeline,
    type_name,
)
from image2video.integrations.openmmlab.search_model import build_segmentor, plain_model, preparation_of, quiet
from image2video.integrations.openmmlab.search_network import SegmentorFrames, SegmentorTask
from image2video.integrations.openmmlab.search_reading import Reading, check_depths, item_files, seeded_globals
from image2video.integrations.openmmlab.search_weights import is_checkpoint
from image2video.search.problems import Request
from image2video.segmentation import check_pixel_labels

LOADERS = ("val", "test")
"""Whose images an assessment may take, the first that the config has by default."""
VIDEO = {"EncoderDecoder": "VideoEncoderDecoder", "CascadeEncoderDecoder": "VideoCascadeEncoderDecoder"}
"""The video segmentor of a plain one, by the names of their types."""
_IMPORTS = "image2video.integrations.openmmlab"


@dataclass(frozen=True)
class Pixels:
    """The labelled pixels of an image.

    Attributes:
        logits: `(P, K)`, at the size of the labels.
        answers: `(P,)`, the classes that the segmentor gives.
        labels: `(P,)`, the true ones.
    """

    logits: Tensor
    answers: Tensor
    labels: Tensor


@dataclass(frozen=True)
class TrainedSegmentor:
    """A trained segmentor of a config, and labelled images.

    Attributes:
        config: the config.
        name: of the config's file, for records.
        weights: where its weights are.
        loader: the key of the data loader whose images are taken.
        plain: the segmentor without any clip, in eval mode.
        network: the same as a ranking sees it.
        task: what it is for.
        items: the data set, by its own pipeline.
        classes: their names.
        model: the config of the plain model.
        video: the options of the config's own clip, which averages; None without one.
        notes: what the user should know, a sentence each.
    """

    config: Config
    name: str
    weights: str
    loader: str
    plain: Any
    network: SegmentorFrames
    task: SegmentorTask
    items: Any
    classes: tuple[str, ...]
    model: Any
    video: VideoOptions | None
    notes: tuple[str, ...]

    @classmethod
    def read(
        cls, config: str | Path | Config, weights: str | Path, images: str | None = None, device: Any = "cpu"
    ) -> Self:
        """Read a config and its trained weights.

        Args:
            config: its path, or the config.
            weights: a checkpoint of mmengine, another torch checkpoint, or safetensors.
            images: `val` or `test`, the loader whose images are taken; by default `val`, else `test`.
            device: where the segmentor computes.

        Returns:
            The segmentor with the images.

        Raises:
            InputError: a config that cannot be read or has no such loader, a segmentor with a fusion, weights that do
                not fit.
            MissingError: no config, no weights, a path in the config that does not exist.
            UnsupportedError: a segmentor, head or data preprocessor that a ranking does not know, by name.
        """
        found = config if isinstance(config, Config) else read_config(str(config), ("model",), "an assessment")
        name = Path(found.filename or "config").stem if isinstance(config, Config) else Path(config).stem
        loader = _loader(found, images)
        if not Path(weights).expanduser().is_file():
            raise MissingError(
                f"expected a file: no weights at {weights}; give the checkpoint of the trained segmentor"
            )
        model, video = plain_model(_with_model(found))
        if type_name(model.get("type")) not in VIDEO:
            raise UnsupportedError(
                f"model.type={type_name(model.get('type'))!r} has no video segmentor; an assessment takes "
                f"{', '.join(VIDEO)} and {', '.join(VIDEO.values())} themselves, no classes derived from them"
            )
        if not isinstance(model.get("test_cfg"), Mapping):
            raise InputError("model has no test_cfg, which says how images are tested; set model.test_cfg.mode='whole'")
        if video is not None and video.fusion_config().name != "none":
            raise InputError(
                f"model.video of {name} has the fusion {video.fusion_config().name}, whose frames depend on each "
                "other: without it the segmentor is not the one that was trained; give the config and the weights of "
                "the plain segmentor"
            )
        if type_name(model.get("backbone", {}).get("type")) == "TimmFeatures":  # no weights that are replaced at once
            model.backbone.update(checkpoint_path="", pretrained=False)
        request = Request(weights=str(weights))
        plain = build_segmentor(model, found.get("data_preprocessor"), request, averaged=video is not None)
        plain = plain.to(device).eval()
        network = SegmentorFrames(plain, full_size=video is None or video.unwarp == "label").eval()
        task = SegmentorTask(network)
        if task.num_classes < 2:
            raise InputError(
                f"model.decode_head.num_classes must be at least 2, got {task.num_classes}: the background is a class; "
                "a head of one output has num_classes=2, out_channels=1"
            )
        items = build_items(found[loader].dataset, f"{loader}.dataset", None)
        files = item_files(items, 0)
        if files and files.get("seg_map_path") is None:
            raise InputError(f"the images of {loader} have no labels; set data_prefix.seg_map_path of its dataset")
        classes = class_names(items, task.num_classes)
        notes = tuple(_notes(network.decode_heads[-1], plain, video))
        return cls(found, name, str(weights), loader, plain, network, task, items, classes, model, video, notes)

    @property
    def description(self) -> str:
        """Backbone and decode head, by the names of their types."""
        return f"{type(self.plain.backbone).__name__}, {type(self.network.decode_heads[-1]).__name__}"

    @property
    def saw_the_images(self) -> bool:
        """Whether the config trains on the images."""
        return same_images(self.config.get("train_dataloader"), self.config[self.loader])

    @property
    def has_own_checkpoint(self) -> bool:
        """Whether the weights' file is one that mmsegmentation loads into any clip of the segmentor."""
        return self.video is None and is_checkpoint(self.weights)

    @property
    def dataset_meta(self) -> dict[str, Any]:
        """Names and colours of the classes, as plain values."""
        count = len(self.classes)
        palette = self.items.metainfo.get("palette") or []
        if len(palette) != count:  # a data set without names of classes has no colours either
            palette = [[round(255 * part) for part in hsv_to_rgb(k / count, 1, 1 - k % 2 / 3)] for k in range(count)]
        return {
            "classes": list(self.classes),
            "palette": [[int(value) for value in colour] for colour in palette],
        }

    def state_dict(self) -> dict[str, Tensor]:
        """The weights of the plain segmentor, on the CPU."""
        return {name: value.cpu() for name, value in self.plain.state_dict().items()}

    def images(self) -> OwnImages:
        """The images as a ranking takes them."""
        prepare = replace(preparation_of(self.plain, self.task, None), size=None)
        test_cfg = getattr(self.plain.data_preprocessor, "test_cfg", None)
        return OwnImages(Reading(self.items, prepare), test_cfg)

    def with_clip(self, options: Mapping[str, Any]) -> Any:
        """The video segmentor that the config would be with `model.video`, over the very weights of the plain one.

        Args:
            options: of `model.video`.

        Returns:
            The segmentor, in eval mode.

        Raises:
            InputError: options that the segmentor refuses.
        """
        model = copy.deepcopy(self.model)
        model["type"], model["video"] = self.video_type, dict(options)
        if "data_preprocessor" not in model and self.config.get("data_preprocessor") is not None:
            model["data_preprocessor"] = self.config.data_preprocessor
        model["pretrained"] = None
        with quiet(), DefaultScope.overwrite_default_scope("mmseg"), warnings.catch_warnings():
            # What building warns of was said of the plain segmentor.
            warnings.simplefilter("ignore")
            made: Any = MODELS.build(model)
        made.load_state_dict(self.plain.state_dict(), assign=True)
        made.to(next(self.plain.parameters()).device)
        return made.eval()

    def config_with(self, options: Mapping[str, Any] | None) -> Config:
        """The whole config with a clip, or that of the plain segmentor for None; it inherits from no file."""
        config = copy.deepcopy(self.config)
        # mmsegmentation's `inference_model` asks for one, and leaves out none but a plain dict(type="LoadAnnotations").
        steps = config.get("test_pipeline") or test_pipeline(config)
        config["test_pipeline"] = [
            step for step in steps if not type_name(step.get("type")).startswith("LoadAnnotations")
        ]
        if options is None:
            config.model["type"] = self.model["type"]
            config.model.pop("video", None)
            return config
        config.model["type"], config.model["video"] = self.video_type, dict(options)
        given = config.get("custom_imports") or {}
        names = [given.get("imports") or []] if isinstance(given.get("imports"), str) else given.get("imports") or []
        config["custom_imports"] = {**given, "imports": [*(name for name in names if name != _IMPORTS), _IMPORTS]}
        return config

    @torch.no_grad()
    def pixels(self, segmentor: Any, number: int) -> Pixels:
        """What a segmentor says of the labelled pixels of image `number`, as the tests of mmsegmentation ask it.

        Args:
            segmentor: the plain one, or one of `with_clip`.
            number: of the data set.

        Returns:
            The pixels.

        Raises:
            InputError: an image that cannot be read, labels that are no class or of another size, logits that are not
                finite, with the name of the file.
        """
        try:
            return self._pixels(segmentor, number)
        except Image2VideoError as error:
            where = item_files(self.items, number).get("img_path", f"image {number}")
            raise type(error)(f"{where}: {error}") from error

    def _pixels(self, segmentor: Any, number: int) -> Pixels:
        sample = segmentor.test_step(pseudo_collate([self._item(number)]))[0]
        logits, labels = sample.seg_logits.data, sample.gt_sem_seg.data.squeeze(0).long()
        if logits.shape[1:] != labels.shape:
            raise InputError(
                f"predictions are {logits.shape[2]}×{logits.shape[1]} pixels, and labels {labels.shape[1]}×"
                f"{labels.shape[0]}; load the labels after Resize in the pipeline of {self.loader}"
            )
        known = labels != self.task.ignore_index
        labels, known = labels[known].to(logits.device), known.to(logits.device)
        check_pixel_labels(labels, self.task.num_classes, ignore_index=self.task.ignore_index)
        found = _logits(logits[:, known].T)
        del logits, sample.seg_logits  # the map of all pixels is as large as what is kept of it
        if not bool(found.isfinite().all()):
            raise InputError("the segmentor's logits must be finite, got NaN or infinity; check its weights")
        return Pixels(found, sample.pred_sem_seg.data.squeeze(0)[known].long(), labels)

    def _item(self, number: int) -> Any:
        """An item of the data set, as its pipeline packs it, with labels."""
        check_depths(item_files(self.items, number))
        try:
            with seeded_globals(0):
                item = self.items[number]
        except Exception as error:
            raise InputError(f"it cannot be read: {type(error).__name__}: {error}") from error
        if "gt_sem_seg" not in item.get("data_samples", {}):
            raise InputError(f"the pipeline of {self.loader} gives no labels; it must hold LoadAnnotations")
        return item

    @property
    def video_type(self) -> str:
        """The type of the segmentor with a clip, as a config names it."""
        return VIDEO[type_name(self.model["type"])]


class Inference(nn.Module):
    """Images `(B, C, H, W)` -> what a segmentor predicts of them, windows and all: what an image costs in use.

    Args:
        segmentor: plain, or a video segmentor.
    """

    def __init__(self, segmentor: Any) -> None:
        super().__init__()
        self.segmentor = segmentor

    def forward(self, images: Tensor) -> Any:
        """The classes of all pixels, a `SegDataSample` an image."""
        return self.segmentor.predict(images)


def _with_model(config: Config) -> Config:
    """The config; raises `InputError` where it has no model."""
    if not isinstance(config.get("model"), Mapping):
        raise InputError("the config has no model; an assessment needs one")
    return config


def _loader(config: Config, images: str | None) -> str:
    """The key of the data loader whose images are taken; raises `InputError` where the config has none."""
    if images is not None and images not in LOADERS:
        raise InputError(f"images must be one of {', '.join(LOADERS)}, got {images!r:.80}")
    asked = LOADERS if images is None else (images,)
    for name in asked:
        loader = config.get(f"{name}_dataloader")
        if not loader:
            continue
        dataset = loader.get("dataset") if isinstance(loader, Mapping) else None
        if not isinstance(loader, Mapping) or (dataset and not isinstance(dataset, Mapping)):
            what = f"dataset of {type(dataset).__name__}" if dataset else type(loader).__name__
            raise InputError(f"{name}_dataloader must be a dict whose dataset is a dict, got a {what}")
        if dataset:
            return f"{name}_dataloader"
    listed = " and no ".join(f"{name}_dataloader" for name in asked)
    raise InputError(f"the config has no {listed} with a dataset; an assessment needs labelled images of one")


def _notes(head: Any, plain: Any, video: VideoOptions | None) -> list[str]:
    """What the user should know of the images and of the segmentor."""
    notes = []
    if video is not None:
        notes.append("The segmentor is assessed without the clip of its config, which averages already.")
    if plain.test_cfg.get("mode") == "slide":
        notes.append(
            "model.test_cfg.mode is 'slide': every figure is of its windows, each a clip of its own; clips were ranked "
            "on whole images."
        )
    losses = head.loss_decode if isinstance(head.loss_decode, nn.ModuleList) else [head.loss_decode]
    if head.out_channels > 1 and any(getattr(loss, "use_sigmoid", False) for loss in losses):
        notes.append(
            f"The {type(head).__name__} was trained with a sigmoid for each class: cross-entropies and calibration "
            "errors are those of a softmax of its outputs, which it was not trained for; the mIoU is its own."
        )
    if head.out_channels == 1 and head.threshold != 0.5:
        notes.append(
            f"The {type(head).__name__} answers with the second class from a probability of {head.threshold:g} on: the "
            "confidence of an answer, of which the calibration error is, may then lie below one half."
        )
    return notes


def _logits(found: Tensor) -> Tensor:
    """Logits `(P, K)` of at least two classes: one output is the probability of the second."""
    wide = found.float()
    if wide.shape[1] > 1:
        return wide
    second = torch.logit(wide, eps=1e-7)
    return torch.cat([torch.zeros_like(second), second], dim=1)
