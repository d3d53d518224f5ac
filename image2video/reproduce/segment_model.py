"""The segmentor of an arm: the plain one of a config, with a clip, or with learned averaging."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import ConfigDict

from image2video.errors import UnsupportedError
from image2video.integrations.openmmlab.search_config import type_name
from image2video.reproduce.genotypes import Chosen
from image2video.reproduce.segment_learned import LearnedEncoderDecoder
from image2video.reproduce.spec import Cell, Setting

VIDEO = {"EncoderDecoder": "VideoEncoderDecoder", "CascadeEncoderDecoder": "VideoCascadeEncoderDecoder"}


def arm_model(arm: Cell, setting: Setting, model: Mapping[str, Any], chosen: Chosen | None) -> ConfigDict:
    """The model of an arm, made of the plain one: as it is, with a clip, or with learned averaging.

    Fusions start as none where the network starts from trained weights, those of another arm or pretrained ones, and
    as published elsewhere. Raises `UnsupportedError` for a segmentor that has no twin with a clip, and for what only
    arms of classification vary.
    """
    for what, value, plain in (
        ("variant", arm.variant, None),
        ("layout", arm.layout, "right"),
        ("sites", arm.sites, None),
        ("clip_at", arm.clip_at, None),
        ("ranked_for", arm.ranked_for, None),
        ("pose", arm.pose, None),
    ):
        if value != plain:
            raise UnsupportedError(
                f"arm {arm.name!r} has {what}={value!r}, which rows of segmentation do not know; leave it out"
            )
    found = ConfigDict(copy.deepcopy(dict(model)))
    if arm.fusion is None:
        return found
    kind = type_name(found.get("type"))
    if kind not in VIDEO:
        raise UnsupportedError(f"model.type={kind!r} has no twin with a clip; known are {', '.join(VIDEO)}")
    if arm.learned:
        return ConfigDict({**found, "type": LearnedEncoderDecoder.__name__, "T": arm.frames(setting)})
    assert chosen is not None
    video = {
        "genotype": str(chosen.genotype),
        "T": arm.frames(setting),
        "schedule": arm.schedule or setting.clip_schedule,
        "padding": setting.padding or "zeros",
        "fusion": arm.fusion,
        "residual": arm.start is not None or _pretrained(model),
    }
    return ConfigDict({**found, "type": VIDEO[kind], "video": video})


def without_pretraining(model: Any) -> None:
    """Let a model begin with random weights: those that it starts from are read once, and put into it later."""
    for part in list(_parts(model)):
        if part.get("pretrained"):
            part["pretrained"] = None if isinstance(part["pretrained"], str) else False
        if part.get("checkpoint_path"):
            part["checkpoint_path"] = None
        if _is_pretrained(part.get("init_cfg")):
            part["init_cfg"] = None


def without_sync(model: Any) -> None:
    """Let a model normalise by each process's own images: SyncBN needs GPUs, and is BN in one process."""
    for part in _parts(model):
        if type_name(part.get("type")) == "SyncBN":
            part["type"] = "BN"


def _pretrained(model: Any) -> bool:
    """Whether a model's config takes weights that were trained before."""
    return any(
        part.get("pretrained") or part.get("checkpoint_path") or _is_pretrained(part.get("init_cfg"))
        for part in _parts(model)
    )


def _is_pretrained(rule: Any) -> bool:
    return isinstance(rule, Mapping) and type_name(rule.get("type")) == "Pretrained"


def _parts(config: Any) -> Iterator[Any]:
    """All dicts in a config, itself included."""
    if isinstance(config, Mapping):
        yield config
        for value in config.values():
            yield from _parts(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _parts(value)
