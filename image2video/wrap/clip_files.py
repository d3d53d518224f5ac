"""The clip that a checkpoint holds: a state dict, a file of one, or a folder of `save_pretrained`."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from image2video.clip.any_clip import AnyClip, any_clip_from_json
from image2video.clip.deep_clip import DeepClip
from image2video.errors import InputError, MissingError
from image2video.runs.folders import torch_load
from image2video.trace.places import IMAGE
from image2video.wrap import pretrained
from image2video.wrap.clip_record import CLIP, CLIP_OPTIONS, decode, is_clip

_DEPTH = 2  # {"model": {"state_dict": {…}}} is the deepest that trainers write


def record_in(source: Mapping[str, Any] | str | os.PathLike[str]) -> dict[str, Any]:
    """Read the clip of a checkpoint.

    Args:
        source: a state dict, also within the dicts that trainers put around it; a file of one; or a folder that
            `save_pretrained` wrote, whose config.json counts.

    Returns:
        The record.

    Raises:
        MissingError: no such file, or no clip in it.
        InputError: a file or a clip that cannot be read, or several clips that differ.
    """
    if isinstance(source, Mapping):
        return _one(_records(source, _DEPTH), "the state dict")
    path = Path(source).expanduser()
    if path.is_dir():
        return _record_of_config(pretrained.read_config(path / pretrained.CONFIG_FILE))
    if path.suffix == ".safetensors":
        return _one(_records(_safetensors(path), 0), str(path))
    # timm's checkpoints hold the parsed command line beside the weights.
    with torch.serialization.safe_globals([argparse.Namespace]):
        found = torch_load(path)
    return _one(_records(found, _DEPTH) if isinstance(found, Mapping) else [], str(path))


def _safetensors(path: Path) -> dict[str, Any]:
    """Read the tensors that may be a clip, and no weights."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise MissingError(f"expected a file: no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys() if key.endswith(CLIP)}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a readable safetensors file ({error}); use another file") from error


def _records(state: Mapping[str, Any], depth: int) -> list[dict[str, Any]]:
    """Read all clips in nested dicts."""
    found = []
    for key, value in state.items():
        if isinstance(key, str) and key.endswith(CLIP) and is_clip(value):
            found.append(decode(value))
        elif depth and isinstance(value, Mapping):
            found += _records(value, depth - 1)
    return found


def _one(records: list[dict[str, Any]], what: str) -> dict[str, Any]:
    """Return the only clip, or raise."""
    if not records:
        raise MissingError(
            f"{what} holds no clip (a key {CLIP!r}): it is of a bare model, or an earlier version wrote it; wrap the "
            "model with the genotype, T and options that it was trained with"
        )
    if any(record != records[0] for record in records):
        raise InputError(f"{what} holds {len(records)} clips that differ; pass the state dict of one model")
    return records[0]


def at_one_place(clip: DeepClip) -> tuple[AnyClip, str | list[str]]:
    """Return the clip of the only place and its name, or a clip at several places and their names."""
    places = [*clip.places]
    return (clip, places) if len(places) > 1 else (clip.clips[0], places[0])


def _record_of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a wrapper from its config."""
    place: str | list[str] = config["clip_at"] or IMAGE
    record = {name: config[name] for name in (*CLIP_OPTIONS, "frames", "fusion", "residual", "aggregate")}
    if config["frames"] is not None:
        record["T"] = config["frames"]["T"]
        record["frames"] = {name: value for name, value in config["frames"].items() if name != "T"}
    else:
        clip = any_clip_from_json(json.dumps(config["genotype"]))
        if isinstance(clip, DeepClip):
            clip, place = at_one_place(clip)
        record["genotype"] = str(clip)
    record["sites"] = [site["name"] for site in config["sites"]]
    record["clip_at"] = place
    return record
