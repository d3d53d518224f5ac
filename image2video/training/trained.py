"""What a training run recorded of itself: what later commands need to treat its weights as it did."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from image2video.clip.any_clip import any_clip_from_json
from image2video.clip.frame_sources import FrameSource
from image2video.errors import InputError
from image2video.runs.origin import run_behind
from image2video.runs.texts import MAX_RECORD_BYTES, read_json
from image2video.runs.yaml_text import read_yaml
from image2video.wrap.video_wrap import VideoWrap

CONFIG_FILE = "config.yaml"
PRETRAINED = "pretrained"


@dataclass(frozen=True)
class TrainedRun:
    """A training run that weights come from.

    Attributes:
        folder: of the run.
        options: what it was started with, by the names of the command line's options; `{}` for runs from Python.
        network: how the network was wrapped, as `network_record` says; `{"genotype": None}` for a bare one, `{}` where
            an older run does not say.
        classes: the names of its classes in the order of the outputs; None where an older run does not say.
        channels: of its images.
    """

    folder: Path
    options: Mapping[str, Any]
    network: Mapping[str, Any]
    classes: tuple[str, ...] | None
    channels: int | None

    @classmethod
    def of(cls, weights: str | os.PathLike[str]) -> TrainedRun | None:
        """Read the record of the run that weights belong to.

        Args:
            weights: the folder of a run, or a file or folder that it wrote.

        Returns:
            The run; None for weights of no run that is known.

        Raises:
            InputError: a record that cannot be read.
        """
        found = run_behind(weights)
        if found is None:
            return None
        folder, record = found
        options = _options(folder / CONFIG_FILE)
        network = record.get("network")
        if network is None:
            network = _older_network(folder, options)
        names, size = record.get("classes"), (record.get("dataset") or {}).get("input_size")
        classes = None if names is None else tuple(str(name) for name in names)
        return cls(folder, options, network, classes, None if not size else int(size[0]))


def network_record(model: nn.Module) -> dict[str, Any]:
    """How a network sees its images, as JSON values: `genotype` None for a bare one, else the wrapper's options."""
    if not isinstance(model, VideoWrap):
        return {"genotype": None}
    record: dict[str, Any] = {
        "genotype": None if model.genotype is None else str(model.genotype),
        "T": model.T,
        "fusion": model.plan.fusion.to_dict(),
        "sites": [site.name for site in model.plan.sites],
        "residual": model.residual,
        "aggregate": model.aggregate if isinstance(model.aggregate, str) else None,
        "freeze_bn": model.freeze_bn,
        "clip_at": model.clip_at,
        "drawn": isinstance(model.to_video, FrameSource),
    }
    if not isinstance(model.to_video, FrameSource):
        options = model.to_video.options.to_dict()
        record |= {name: options[name] for name in ("schedule", "padding", "interpolation")}
    return record


def _options(path: Path) -> dict[str, Any]:
    """The settings of a run; none where it has no such file."""
    if not path.is_file():
        return {}
    options = read_yaml(path, "config of a run", max_bytes=MAX_RECORD_BYTES)
    if not isinstance(options, dict):
        raise InputError(f"{path} must hold options by name, got a {type(options).__name__}; restore a copy of it")
    return options


def _older_network(folder: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """How the network of a run was wrapped that did not record it in `run.json`."""
    saved = folder / PRETRAINED / "config.json"
    if saved.is_file():
        config = read_json(saved)
        if isinstance(config, dict) and isinstance(config.get("genotype"), dict):
            names = ("T", "fusion", "residual", "aggregate", "freeze_bn", "schedule", "padding", "interpolation")
            kept = {name: config[name] for name in names if name in config}
            kept["clip_at"] = config.get("clip_at")
            sites = [site["name"] for site in config.get("sites", [])]
            genotype = str(any_clip_from_json(json.dumps(config["genotype"])))
            return {"genotype": genotype, "sites": sites, "drawn": False, **kept}
    if options.get("genotype") == "none" and options.get("frame_source") is None:
        return {"genotype": None}
    return {}
