"""The files of a wrapped model: safetensors beside a JSON config, no pickle.

This module knows the parts of a wrapper, not the wrapper: `VideoWrap` takes itself apart to be written, and puts itself
together from what is read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from image2video.clip import hub
from image2video.clip.frame_sources import FrameSource, source_from_record, source_record
from image2video.clip.genotype import Genotype
from image2video.clip.image_to_video import Image2Video
from image2video.clip.options import ClipOptions
from image2video.errors import InputError, InputTypeError, MissingError, UnsupportedError
from image2video.fusion.config import FusionConfig
from image2video.fusion.registry import config_from_dict
from image2video.inject.plan import Plan, Site
from image2video.inject.planning import plan
from image2video.runs.folders import atomic_write_bytes, atomic_write_json, read_json
from image2video.version import __version__
from image2video.wrap.builders import Builder

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
SCHEMA_VERSION = 1
_LIBRARY = "image2video"
_CLIP = tuple(ClipOptions().arguments())
_OPTIONS = ("aggregate", "residual", "freeze_bn")
_LATER = ("mean", "std", "frames")  # older configs do not have them
_KEYS = {"library", "schema_version", "genotype", "fusion", "sites", "input_size", "builder", "versions", "frames"}
_KEYS.update(_OPTIONS, _CLIP)


@dataclass(frozen=True)
class Saved:
    """The parts of a saved wrapper.

    Attributes:
        backbone: the bare backbone, without the saved weights.
        arguments: all further arguments of `VideoWrap`.
        builder: how the backbone was built; None where that was not recorded.
        state: the state dict of the wrapper.
    """

    backbone: nn.Module
    arguments: dict[str, Any]
    builder: Builder | None
    state: dict[str, Tensor]


def config_of(
    to_video: Image2Video | FrameSource, the_plan: Plan, builder: Builder | None, **options: Any
) -> dict[str, Any]:
    """Everything that loading needs beside the weights, as JSON values; `options` are those of `_OPTIONS`."""
    how = options["aggregate"]
    if not isinstance(how, str):
        raise InputTypeError(
            f"aggregate={how!r} is a callable, which a JSON config cannot hold; set model.aggregate to a name before "
            "saving, and to the callable again after loading"
        )
    return {
        "library": _LIBRARY,
        "schema_version": SCHEMA_VERSION,
        **_clip_record(to_video),
        **options,
        "fusion": the_plan.fusion.to_dict(),
        "sites": [_site_record(site) for site in the_plan.sites],
        "input_size": list(the_plan.input_size),
        "builder": builder.to_dict() if builder is not None else None,
        "versions": {"image2video": __version__, "torch": torch.__version__},
    }


def write(directory: str | os.PathLike[str], config: dict[str, Any], state: Mapping[str, Any]) -> None:
    """Write weights and config to a folder; the config last, so that it never names missing weights."""
    from safetensors.torch import save as to_bytes

    folder = Path(directory)
    content = to_bytes(_unshared(state), metadata={"format": "pt"})
    atomic_write_bytes(folder / WEIGHTS_FILE, content)
    atomic_write_json(folder / CONFIG_FILE, config)


def read(path: str | os.PathLike[str], backbone: nn.Module | None, revision: str | None) -> Saved:
    """Read what `write` wrote, and build the backbone where none is given; see `VideoWrap.from_pretrained`."""
    from safetensors.torch import load_file

    config_path, weights_path = _files(path, revision)
    config = read_config(config_path)
    builder = Builder.from_dict(config["builder"]) if config["builder"] is not None else None
    if backbone is None:
        if builder is None:
            raise MissingError(
                f"{config_path} names no builder, so the backbone cannot be built from it; build it as it was and pass "
                "from_pretrained(path, backbone=…)"
            )
        backbone = builder.build()
    arguments = {
        "fusion": config_from_dict(config["fusion"]),
        **{key: config[key] for key in _OPTIONS},
        **_clip_arguments(config),
    }
    size = tuple(config["input_size"])
    if config["sites"]:
        arguments["sites"] = _matching_plan(backbone, arguments["fusion"], size, config["sites"])
    elif any(size):
        arguments["input_size"] = size
    return Saved(backbone, arguments, builder, load_file(weights_path))


def _clip_record(to_video: Image2Video | FrameSource) -> dict[str, Any]:
    """Record a `FrameSource` under `frames`, or the genotype and options of an `Image2Video`; None for the rest."""
    if isinstance(to_video, FrameSource):
        return {**dict.fromkeys(("genotype", *_CLIP)), "frames": source_record(to_video)}
    return {"genotype": json.loads(to_video.genotype.to_json()), **to_video.options.to_dict(), "frames": None}


def _clip_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `VideoWrap` that `_clip_record` recorded."""
    if config["frames"] is not None:
        return {"frames": source_from_record(config["frames"])}
    genotype = Genotype.from_json(json.dumps(config["genotype"]))
    return {"genotype": genotype, **{key: config[key] for key in _CLIP}}


def _site_record(site: Site) -> dict[str, Any]:
    """Record what of a site must still hold when the weights are loaded: place, channels and layout."""
    layout = asdict(site.layout)
    layout["grid"] = list(site.layout.grid) if site.layout.grid is not None else None
    return {"name": site.name, "placement": site.placement, "channels": site.channels, "layout": layout}


def _unshared(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a state dict on the CPU, none of which shares memory with another."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise UnsupportedError(f"the state {name!r} is a {type(value).__name__}; only tensors can be saved")
        tensor = value.detach().to("cpu").contiguous()
        # safetensors refuses tensors that share memory: tied weights are written once per name.
        storage = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if storage in seen else tensor
        seen.add(storage)
    return tensors


def read_config(path: Path) -> dict[str, Any]:
    """Read the config that `write` wrote; raise `InputError` for any other JSON, naming the file."""
    config = read_json(path)
    if not isinstance(config, Mapping) or config.get("library") != _LIBRARY:
        raise InputError(f"{path} is not a config of image2video; it must be written by save_pretrained")
    version = config.get("schema_version")
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema_version {version!r}, this version of image2video reads {SCHEMA_VERSION}; "
            "install the version that wrote it"
        )
    wrong = sorted(_KEYS ^ (set(config) | set(_LATER)))
    if wrong:
        raise InputError(f"{path} has missing or unknown keys: {', '.join(wrong)}")
    return {**dict.fromkeys(_LATER), **config}


def _files(path: str | os.PathLike[str], revision: str | None) -> tuple[Path, Path]:
    """Return the paths of config and weights in a folder, or of their copies from the Hub."""
    folder = Path(path)
    if folder.is_dir():
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            if not (folder / name).is_file():
                raise MissingError(f"{folder} holds no {name}; it must be written by save_pretrained")
        return folder / CONFIG_FILE, folder / WEIGHTS_FILE
    if folder.is_absolute() or str(path).count("/") != 1:
        raise MissingError(
            f"there is no folder {os.fspath(path)!r}, and it is no id of a Hugging Face Hub repository; expected a "
            "folder or OWNER/NAME"
        )
    repository = os.fspath(path)
    config = hub.download(repository, CONFIG_FILE, revision=revision)
    return config, hub.download(repository, WEIGHTS_FILE, revision=revision)


def _matching_plan(
    backbone: nn.Module, fusion: FusionConfig, size: tuple[int, ...], saved: list[dict[str, Any]]
) -> Plan:
    """Return the plan of the saved sites in this backbone; raise `InputError` with both lists where they differ."""
    found = plan(backbone, fusion=fusion, input_size=size)
    names = {record["name"] for record in saved}
    here = [_site_record(site) for site in found.sites if site.name in names]
    if here != saved:
        every = [_site_record(site) for site in found.sites]
        raise InputError(
            f"the saved sites must be those of the backbone, a {type(backbone).__name__} at input {size}; pass the "
            "backbone that was saved, at the installed versions that saved it\n"
            f"saved ({len(saved)}): {_list(saved)}\nfound ({len(every)}): {_list(every)}"
        )
    if len(here) == len(found.sites):
        return found
    return plan(backbone, fusion=fusion, sites=[record["name"] for record in saved], input_size=size)


def _list(records: list[dict[str, Any]]) -> str:
    """List site records in a line of a message."""
    return ", ".join(f"{r['name']} ({r['placement']}, {r['channels']} channels)" for r in records) or "none"
