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
from image2video.clip.any_clip import any_clip_from_json
from image2video.clip.deep_clip import DeepClip
from image2video.clip.frame_sources import FrameSource, source_from_record, source_record
from image2video.errors import Image2VideoError, InputError, InputTypeError, MissingError, UnsupportedError
from image2video.fusion.config import FusionConfig
from image2video.fusion.registry import config_from_dict
from image2video.inject.plan import Plan, Site
from image2video.inject.planning import plan
from image2video.runs.folders import atomic_write_bytes, atomic_write_json
from image2video.runs.texts import user_path
from image2video.runs.weights import read_safetensors
from image2video.trace.places import IMAGE
from image2video.version import __version__
from image2video.wrap.builders import Builder
from image2video.wrap.clip_record import Video
from image2video.wrap.pretrained_config import (
    CLIP,
    DEEP_VERSION,
    INSIDE_VERSION,
    LIBRARY,
    OPTIONS,
    SCHEMA_VERSION,
    check_local,
    read_config,
)

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True)
class Saved:
    """The parts of a saved wrapper.

    Attributes:
        backbone: the bare backbone, without the saved weights.
        arguments: all further arguments of `VideoWrap`.
        builder: how the backbone was built; None where that was not recorded.
        state: the state dict of the wrapper.
        source: the file of the weights, for messages.
    """

    backbone: nn.Module
    arguments: dict[str, Any]
    builder: Builder | None
    state: dict[str, Tensor]
    source: str = "the saved weights"


def config_of(to_video: Video, the_plan: Plan, builder: Builder | None, **options: Any) -> dict[str, Any]:
    """Everything that loading needs beside the weights, as JSON values; `options` are those of `OPTIONS`."""
    how = options["aggregate"]
    if not isinstance(how, str):
        raise InputTypeError(
            f"aggregate={how!r} is a callable, which a JSON config cannot hold; set model.aggregate to a name before "
            "saving, and to the callable again after loading"
        )
    return {
        "library": LIBRARY,
        "schema_version": _version(the_plan),
        **_clip_record(to_video),
        **({} if the_plan.clip_site is None or the_plan.later_sites else {"clip_at": the_plan.clip_site.name}),
        **options,
        "fusion": the_plan.fusion.to_dict(),
        "sites": [_site_record(site) for site in the_plan.sites],
        "input_size": list(the_plan.input_size),
        "builder": builder.to_dict() if builder is not None else None,
        "versions": {"image2video": __version__, "torch": torch.__version__},
    }


def _version(the_plan: Plan) -> int:
    """Return the version that a config needs."""
    if the_plan.later_sites:
        return DEEP_VERSION
    return SCHEMA_VERSION if the_plan.clip_site is None else INSIDE_VERSION


def write(directory: str | os.PathLike[str], config: dict[str, Any], state: Mapping[str, Any]) -> None:
    """Write weights and config to a folder; the config last, so that it never names missing weights."""
    from safetensors.torch import save as to_bytes

    folder = Path(directory)
    content = to_bytes(_unshared(state), metadata={"format": "pt"})
    atomic_write_bytes(folder / WEIGHTS_FILE, content)
    write_config(folder, config)


def write_config(directory: str | os.PathLike[str], config: dict[str, Any]) -> None:
    """Write the config to a folder."""
    atomic_write_json(Path(directory) / CONFIG_FILE, config)


def read(
    path: str | os.PathLike[str], backbone: nn.Module | None, revision: str | None, *, allow_download: bool = False
) -> Saved:
    """Read what `write` wrote, and build the backbone where none is given; see `VideoWrap.from_pretrained`."""
    config_path, weights_path = _files(path, revision, allow_download)
    config = read_config(config_path)
    state = read_safetensors(weights_path)
    if not allow_download:
        largest = max((size for tensor in state.values() for size in tensor.shape), default=0)
        checked = config if backbone is None else {**config, "builder": None}  # it is not built
        check_local(checked, str(config_path), largest=largest)
    builder = Builder.from_dict(config["builder"]) if config["builder"] is not None else None
    if backbone is None:
        backbone = _built(builder, config_path, allow_download)
    arguments = {
        "fusion": config_from_dict(config["fusion"]),
        **{key: config[key] for key in OPTIONS},
        **_clip_arguments(config),
    }
    size = tuple(config["input_size"])
    clip = arguments.get("genotype")
    places = clip.places if isinstance(clip, DeepClip) else config["clip_at"]
    if config["sites"]:
        arguments["sites"] = _matching_plan(backbone, arguments["fusion"], size, config["sites"], places)
    elif any(size):
        arguments["input_size"] = size
    # Said in any case: the genotype may have been found at another place.
    several = isinstance(clip, DeepClip)
    arguments["clip_at"] = config["clip_at"] if several else config["clip_at"] or IMAGE
    return Saved(backbone, arguments, builder, state, str(weights_path))


def _built(builder: Builder | None, source: Path, allow_download: bool) -> nn.Module:
    """Build the bare backbone; without trained weights unless asked, since those of the file take their place."""
    if builder is None:
        raise MissingError(
            f"{source} names no builder, so the backbone cannot be built from it; build it as it was and pass "
            "from_pretrained(path, backbone=…)"
        )
    if not allow_download and "pretrained" in builder.kwargs:
        builder = builder.with_kwargs(pretrained=False)
    try:
        return builder.build()
    except Image2VideoError:
        raise
    except Exception as error:  # the arguments of a file reach another library, whose errors have any type
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{source}: {builder.name!r:.80} could not be built with the arguments {dict(builder.kwargs)!r:.200}: "
            f"{reason:.300}; pass backbone=…"
        ) from error


def _clip_record(to_video: Video) -> dict[str, Any]:
    """Record a `FrameSource` under `frames`, or the genotype and options of any other; None for the rest."""
    if isinstance(to_video, FrameSource):
        return {**dict.fromkeys(("genotype", *CLIP)), "frames": source_record(to_video)}
    return {"genotype": json.loads(to_video.genotype.to_json()), **to_video.options.to_dict(), "frames": None}


def _clip_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `VideoWrap` that `_clip_record` recorded."""
    if config["frames"] is not None:
        return {"frames": source_from_record(config["frames"])}
    genotype = any_clip_from_json(json.dumps(config["genotype"]))  # an object: a text could name a file
    return {"genotype": genotype, **{key: config[key] for key in CLIP}}


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


def _files(path: str | os.PathLike[str], revision: str | None, allow_download: bool) -> tuple[Path, Path]:
    """Return the paths of config and weights in a folder, or of their copies from the Hub."""
    folder = user_path(path)
    if os.path.isdir(folder):
        if revision is not None:
            raise InputError(f"{str(folder)!r} is a local folder, which has no revision={revision!r}; leave it out")
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            if not os.path.isfile(folder / name):
                raise MissingError(f"{folder} holds no {name}; it must be written by save_pretrained")
            if not allow_download:
                _check_inside(folder, name)
        return folder / CONFIG_FILE, folder / WEIGHTS_FILE
    if folder.is_absolute() or str(path).count("/") != 1:
        raise MissingError(
            f"there is no folder {os.fspath(path)!r}, and it is no id of a Hugging Face Hub repository; expected a "
            "folder or OWNER/NAME"
        )
    repository = os.fspath(path)
    config = hub.download(repository, CONFIG_FILE, revision=revision)
    return config, hub.download(repository, WEIGHTS_FILE, revision=revision)


def _check_inside(folder: Path, name: str) -> None:
    """Refuse a link that leads out of a folder; those of the Hub's own cache lead to its blobs."""
    home, target = folder.resolve(), (folder / name).resolve()
    cached = home.parent.name == "snapshots" and target.parent == home.parent.parent / "blobs"
    if not (target.is_relative_to(home) or cached):
        raise InputError(
            f"{folder / name} is a link to {target}, outside of its folder; pass allow_download=True where you trust "
            "it, or copy the file"
        )


def _matching_plan(
    backbone: nn.Module,
    fusion: FusionConfig,
    size: tuple[int, ...],
    saved: list[dict[str, Any]],
    clip_at: str | tuple[str, ...] | None,
) -> Plan:
    """Return the plan of the saved sites in this backbone; raise `InputError` with both lists where they differ.

    The sites are asked for by name: what the rule chooses may change between versions, and a user may have chosen more.
    """
    names = [record["name"] for record in saved]
    reason: InputError | None = None
    try:
        named = plan(backbone, fusion=fusion, sites=names, input_size=size, clip_at=clip_at)
        if [_site_record(site) for site in named.sites] == saved:
            return named
    except InputError as error:
        reason = error
    found = plan(backbone, fusion=fusion, input_size=size, clip_at=clip_at)
    every = [_site_record(site) for site in found.sites]
    if every == saved:
        return found
    raise InputError(
        f"the saved sites must be those of the backbone, a {type(backbone).__name__} at input {size}; pass the "
        "backbone that was saved, at the installed versions that saved it\n"
        f"saved ({len(saved)}): {_list(saved)}\nfound ({len(every)}): {_list(every)}"
    ) from reason


def _list(records: list[dict[str, Any]]) -> str:
    """List site records in a line of a message."""
    return ", ".join(f"{r['name']} ({r['placement']}, {r['channels']} channels)" for r in records) or "none"
