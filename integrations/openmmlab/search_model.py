"""The plain segmentor of a mmsegmentation config with its first weights, and what its data preprocessor does."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmseg.models import SegDataPreProcessor
from mmseg.registry import MODELS

from image2video.functional import Image2VideoError, InputError, UnsupportedError
from image2video.integrations.openmmlab.options import VideoOptions
from image2video.integrations.openmmlab.search_config import type_name
from image2video.integrations.openmmlab.search_reading import Preparation, Size, seeded_globals
from image2video.integrations.openmmlab.search_weights import load_segmentor
from image2video.search.problems import Request

_PLAIN = {"VideoEncoderDecoder": "EncoderDecoder", "VideoCascadeEncoderDecoder": "CascadeEncoderDecoder"}


def plain_model(config: Config) -> tuple[ConfigDict, VideoOptions | None]:
    """The config of the plain segmentor, and the clip's options where the config is a video segmentor's.

    In one process SyncBN becomes BN, which is what it computes there. Raises `InputError` for a wrapped backbone.
    """
    model = copy.deepcopy(config.model)
    kind, video = type_name(model.get("type")), None
    if kind in _PLAIN:
        # The genotype is what is searched for; its file need not be there yet.
        given = {key: value for key, value in (model.pop("video", None) or {}).items() if key != "genotype"}
        model["type"], video = _PLAIN[kind], VideoOptions.from_config(given)
    if type_name(model.get("backbone", {}).get("type")) == "VideoWrap":
        raise InputError(
            "model.backbone.type='VideoWrap' makes clips itself; use the bare backbone, model.backbone.backbone"
        )
    if _single_process():
        for part in _parts(model):
            if type_name(part.get("type")) == "SyncBN":
                part["type"] = "BN"
    return model, video


def build_segmentor(model: Any, preprocessor: Any, request: Request, *, averaged: bool = False) -> Any:
    """The plain segmentor with its first weights, drawn by the seed, or with trained ones; see `load_segmentor`."""
    if "data_preprocessor" not in model and preprocessor is not None:
        model["data_preprocessor"] = preprocessor
    if request.weights is not None:  # nothing is to be fetched that is replaced at once
        model["pretrained"] = None
    with quiet(), DefaultScope.overwrite_default_scope("mmseg"), seeded_globals(request.config.seed):
        try:
            segmentor: Any = MODELS.build(model)
            if request.weights is None:
                segmentor.init_weights()
        except Image2VideoError:
            raise
        except OSError as error:
            raise InputError(
                f"the first weights of the model cannot be read (pretrained={model.get('pretrained')!r}): {error}; set "
                "model.pretrained=None or a local file, or give --weights"
            ) from error
        except Exception as error:
            kind = type_name(model.get("type"))
            raise InputError(f"model ({kind}) cannot be built: {type(error).__name__}: {error}") from error
    if request.weights is not None:
        load_segmentor(segmentor, request.weights, averaged=averaged)
    return segmentor


def preparation_of(segmentor: Any, task: Any, size: Size | None) -> Preparation:
    """What the segmentor's data preprocessor does to an image; `size` in place of its own."""
    found: Any = segmentor.data_preprocessor
    if not isinstance(found, SegDataPreProcessor):
        raise UnsupportedError(f"model.data_preprocessor.type must be SegDataPreProcessor, got {type(found).__name__}")
    if found.batch_augments is not None:
        raise UnsupportedError(
            "model.data_preprocessor.batch_augments mixes images, which a search cannot use; set it to None"
        )
    normalised = found._enable_normalize
    own = None if found.size is None else (int(found.size[0]), int(found.size[1]))
    return Preparation(
        mean=tuple(found.mean.flatten().tolist()) if normalised else (0.0, 0.0, 0.0),
        std=tuple(found.std.flatten().tolist()) if normalised else (1.0, 1.0, 1.0),
        swap=bool(found._channel_conversion),
        size=size or own,
        pad_val=float(found.pad_val),
        seg_pad_val=int(found.seg_pad_val),
        num_classes=task.num_classes,
        ignore_index=task.ignore_index,
    )


def _single_process() -> bool:
    """Whether batch norms cannot be synchronised: without a group of processes, or without CUDA."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not distributed or torch.distributed.get_world_size() == 1 or not torch.cuda.is_available()


def _parts(config: Any) -> Iterator[Any]:
    """All dicts in a config, itself included."""
    if isinstance(config, Mapping):
        yield config
        for value in config.values():
            yield from _parts(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _parts(value)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence mmengine, which logs a line per parameter when it draws weights."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
