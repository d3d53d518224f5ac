"""Saving and loading wrapped models: safetensors beside a JSON config, no pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from image2video.clip.frame_sources import FrameSource, source_from_record, source_record
from image2video.clip.genotype import Genotype
from image2video.clip.image_to_video import Image2Video
from image2video.errors import InputError, InputTypeError, MissingError, UnsupportedError
from image2video.fusion.config import FusionConfig
from image2video.fusion.registry import config_from_dict
from image2video.inject.plan import Plan, Site
from image2video.inject.planning import plan
from image2video.runs.folders import atomic_write_bytes, atomic_write_json, read_json
from image2video.version import __version__
from image2video.wrap.builders import Builder

if TYPE_CHECKING:
    from image2video.wrap.video_wrap import VideoWrap

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
SCHEMA_VERSION = 1
_LIBRARY = "image2video"
_OPTIONS = ("aggregate", "residual", "freeze_bn")
_CLIP = ("T", "schedule", "padding", "interpolation", "mean", "std")
_LATER = ("mean", "std", "frames")  # older configs do not have them
_KEYS = {"library", "schema_version", "genotype", "fusion", "sites", "input_size", "builder", "versions", "frames"}
_KEYS.update(_OPTIONS, _CLIP)


def config_of(model: VideoWrap) -> dict[str, Any]:
    """Everything that `from_pretrained` needs beside the weights, as JSON values."""
    if not isinstance(model.aggregate, str):
        raise InputTypeError(
            f"aggregate={model.aggregate!r} is a callable, which a JSON config cannot hold; set model.aggregate to a "
            "name before saving, and to the callable again after loading"
        )
    return {
        "library": _LIBRARY,
        "schema_version": SCHEMA_VERSION,
        **clip_config(model.to_video),
        "aggregate": model.aggregate,
        "residual": model.residual,
        "freeze_bn": model.freeze_bn,
        "fusion": model.plan.fusion.to_dict(),
        "sites": [site_record(site) for site in model.plan.sites],
        "input_size": list(model.plan.input_size),
        "builder": model.builder.to_dict() if model.builder is not None else None,
        "versions": {"image2video": __version__, "torch": torch.__version__},
    }


def clip_config(to_video: Image2Video | FrameSource) -> dict[str, Any]:
    """What makes the clips: `frames` for a `FrameSource`, the options of `Image2Video` otherwise; None for the rest."""
    if isinstance(to_video, FrameSource):
        return {**dict.fromkeys(("genotype", *_CLIP)), "frames": source_record(to_video)}
    return {"genotype": json.loads(to_video.genotype.to_json()), **to_video.options.to_dict(), "frames": None}


def site_record(site: Site) -> dict[str, Any]:
    """What of a site must still hold when the weights are loaded: place, channels and layout."""
    layout = asdict(site.layout)
    layout["grid"] = list(site.layout.grid) if site.layout.grid is not None else None
    return {"name": site.name, "placement": site.placement, "channels": site.channels, "layout": layout}


def save(model: VideoWrap, directory: str | os.PathLike[str]) -> None:
    """Write weights and config of a wrapper to a folder; the config last, so that it never names missing weights."""
    from safetensors.torch import save as to_bytes

    config = config_of(model)
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise UnsupportedError(f"the state {name!r} is a {type(value).__name__}; only tensors can be saved")
        tensor = value.detach().to("cpu").contiguous()
        # safetensors refuses tensors that share memory: tied weights are written once per name.
        storage = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if storage in seen else tensor
        seen.add(storage)
    folder = Path(directory)
    atomic_write_bytes(folder / WEIGHTS_FILE, to_bytes(tensors, metadata={"format": "pt"}))
    atomic_write_json(folder / CONFIG_FILE, config)


def load(
    cls: type[VideoWrap], path: str | os.PathLike[str], backbone: nn.Module | None, *, revision: str | None = None
) -> VideoWrap:
    """Build the wrapper that `save` wrote, in eval mode; see `VideoWrap.from_pretrained`."""
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
    fusion = config_from_dict(config["fusion"])
    size = tuple(config["input_size"])
    model = cls(
        backbone,
        fusion,
        sites=_matching_plan(backbone, fusion, size, config["sites"]) if config["sites"] else None,
        input_size=size if any(size) and not config["sites"] else None,
        **{key: config[key] for key in _OPTIONS},
        **_clip_options(config),
    )
    model.builder = builder
    model.load_state_dict(load_file(weights_path))
    return model.eval()


def read_config(path: Path) -> dict[str, Any]:
    """The config that `save` wrote; raises `InputError` for any other JSON, naming the file."""
    config = read_json(path)
    if not isinstance(config, Mapping) or config.get("library") != _LIBRARY:
        raise InputError(f"{path} is not a config of image2video; it was not written by save_pretrained")
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


def _clip_options(config: Mapping[str, Any]) -> dict[str, Any]:
    if config["frames"] is not None:
        return {"frames": source_from_record(config["frames"])}
    genotype = Genotype.from_json(json.dumps(config["genotype"]))
    return {"genotype": genotype, **{key: config[key] for key in _CLIP}}


def _files(path: str | os.PathLike[str], revision: str | None) -> tuple[Path, Path]:
    folder = Path(path)
    if folder.is_dir():
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            if not (folder / name).is_file():
                raise MissingError(f"{folder} holds no {name}; it was not written by save_pretrained")
        return folder / CONFIG_FILE, folder / WEIGHTS_FILE
    if folder.is_absolute() or str(path).count("/") != 1:
        raise MissingError(
            f"there is no folder {os.fspath(path)!r}, and it is no id of a Hugging Face Hub repository (OWNER/NAME)"
        )
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        fetched = [hf_hub_download(os.fspath(path), name, revision=revision) for name in (CONFIG_FILE, WEIGHTS_FILE)]
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise MissingError(
            f"there is no folder {os.fspath(path)!r} here, and the Hugging Face Hub gave no such repository: {error}"
        ) from error
    return Path(fetched[0]), Path(fetched[1])


def _matching_plan(
    backbone: nn.Module, fusion: FusionConfig, size: tuple[int, ...], saved: list[dict[str, Any]]
) -> Plan:
    """The plan of the saved sites in this backbone; `InputError` with both lists where it finds other ones."""
    found = plan(backbone, fusion=fusion, input_size=size)
    names = {record["name"] for record in saved}
    here = [site_record(site) for site in found.sites if site.name in names]
    if here != saved:
        every = [site_record(site) for site in found.sites]
        raise InputError(
            f"the sites that were saved are not those of this {type(backbone).__name__} at input {size}.\n"
            f"saved ({len(saved)}): {_list(saved)}\nfound ({len(every)}): {_list(every)}\n"
            "Pass the backbone that was saved, at the installed versions that saved it"
        )
    if len(here) == len(found.sites):
        return found
    return plan(backbone, fusion=fusion, sites=[record["name"] for record in saved], input_size=size)


def _list(records: list[dict[str, Any]]) -> str:
    return ", ".join(f"{r['name']} ({r['placement']}, {r['channels']} channels)" for r in records) or "none"
