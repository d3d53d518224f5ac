"""Options that a run recorded are the defaults of later commands on its weights; what differs is said."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from image2video.cli.arguments import dashed, plain_values
from image2video.clip.any_clip import as_any_clip, listed_frames
from image2video.data.source import short_name
from image2video.errors import Image2VideoError, InputError, MissingError
from image2video.fusion.registry import config_from_dict, resolve_fusion
from image2video.runs.origin import BEST
from image2video.trace.places import IMAGE
from image2video.training.trained import CONFIG_FILE, PRETRAINED, TrainedRun

NETWORK = ("model", "model_kwargs")
"""The options that say which bare network it is."""
WRAP = (
    *("genotype", "frame_source", "frames", "schedule", "padding", "interpolation"),
    *("clip_at", "fusion", "residual", "sites", "aggregate"),
)
"""The options that say how it sees an image."""
_DIVISION = ("train_images", "holdout", "seed", "flip")
"""The options that mean something for the data of the run alone."""
_NONE = type(None)
_TYPES: dict[str, tuple[type, ...]] = {
    **{"data": (str,), "train_images": (int, _NONE), "holdout": (int, float), "seed": (int,), "flip": (bool, _NONE)},
    **{"model": (str,), "model_kwargs": (dict,), "sites": (str, _NONE), "frame_source": (str, _NONE)},
    "clip_at": (str, _NONE),
}
"""What the options of a run's file must be."""
_CLIP = {
    **{"frames": "T", "schedule": "schedule", "padding": "padding", "interpolation": "interpolation"},
    "clip_at": "clip_at",
}
"""The options of a clip that a genotype's file may say too, and their names there."""


def follow_run(
    options: Namespace, names: Sequence[str] = (*NETWORK, *WRAP)
) -> tuple[Namespace, TrainedRun | None, list[str]]:
    """Fill in what the run behind `--weights` recorded where nothing else was asked for.

    The folder of a run stands for its best weights. A folder of `save_pretrained` says itself how its model is wrapped.

    Args:
        options: of the command.
        names: which of the recorded options the command takes, beside data, parts of it and seed.

    Returns:
        The options, the run (None for weights of no known run), and lines that say what was taken and what differs.

    Raises:
        MissingError: a run without weights yet.
        InputError: a run whose record cannot be used.
    """
    options = Namespace(**vars(options))
    weights = options.weights
    if weights in (None, "none"):
        return options, None, []
    run = TrainedRun.of(weights)
    if run is None:
        return options, None, []
    if Path(weights).expanduser() == run.folder:
        options.weights = _best(run)
    given = {name for name in getattr(options, "given", ()) if options[name] is not None}
    if Path(options.weights).is_dir():  # of save_pretrained
        names = [name for name in names if name in NETWORK]
    recorded = _recorded(run, options, given, names)
    taken, differ = [], []
    for name, value in recorded.items():
        if name in given:
            if not _same(name, options[name], value):
                differ.append(f"{dashed(name)} {_text(value)} there, {_text(options[name])} here")
        elif not _same(name, options[name], value):
            options[name] = value
            taken.append(f"{dashed(name)} {_text(value)}")
    notes = []
    if taken:
        notes.append(f"as in the run {run.folder}: {', '.join(taken)}")
    if differ:
        notes.append(f"other than in the run {run.folder}: {', '.join(differ)}")
    return options, run, notes


def say(command: str, notes: Sequence[str], *, show: bool = True) -> None:
    """Print lines on the error stream, under the command's name."""
    for note in notes if show else ():
        print(f"image2video {command}: {note}", file=sys.stderr)


def _best(run: TrainedRun) -> str:
    """The best weights of a run."""
    path = run.folder / BEST
    if not path.is_file():
        raise MissingError(f"the run in {run.folder} has no {BEST} yet; finish it with --resume, or give other weights")
    return str(path)


def _recorded(run: TrainedRun, options: Namespace, given: set[str], names: Sequence[str]) -> dict[str, Any]:
    """What the run recorded, by the names of the command's options."""
    found: dict[str, Any] = {name: run.options[name] for name in NETWORK if name in run.options and name in names}
    if "data" in options and "data" in run.options:
        if "data" not in given:
            found["data"] = run.options["data"]
        if "data" not in given or short_name(options.data) == short_name(str(run.options["data"])):
            found |= {name: run.options[name] for name in _DIVISION if name in run.options}
    if "genotype" in names:
        found |= _wrapping(run, options, given)
    elif "frames" in given and "T" in run.network:  # the one thing of a saved wrapper that an option changes
        found["frames"] = run.network["T"]
    for name, value in found.items():
        if name in _TYPES and not isinstance(value, _TYPES[name]):
            raise InputError(f"{run.folder / CONFIG_FILE} has {name}: {value!r}, which is no value of {dashed(name)}")
    return {name: value for name, value in found.items() if name in options}


def _wrapping(run: TrainedRun, options: Namespace, given: set[str]) -> dict[str, Any]:
    """How the network of the run was wrapped, as options."""
    network = run.network
    if not network:
        kept = {name: run.options[name] for name in WRAP if run.options.get(name) is not None}
        return {} if run.options.get("genotype") == "none" else kept
    if "T" not in network:
        return {"genotype": "none"}
    if options.get("genotype") == "none" and "genotype" in given:
        return {"genotype": network["genotype"]}  # which the command refuses
    found: dict[str, Any] = {"frames": network["T"], "residual": network["residual"]}
    found |= {name: network[name] for name in ("schedule", "padding", "interpolation") if name in network}
    found["aggregate"] = _aggregate(run, given)
    found["fusion"] = _fusion(run, given)
    found["sites"] = (
        run.options["sites"] if "sites" in run.options else "|".join(map(re.escape, network["sites"])) or None
    )
    if network["drawn"]:
        if "genotype" in given:
            return found
        if run.options.get("frame_source") is None and "frame_source" not in given:
            raise InputError(f"the run {run.folder} drew its frames from a source of its own; give --frame-source")
        return {**found, "frame_source": run.options.get("frame_source")}
    if "frame_source" in given:
        return found
    found["clip_at"] = network.get("clip_at")
    found["genotype"] = network["genotype"]
    if "genotype" in given and not _same("genotype", options.genotype, network["genotype"]):
        # Another genotype brings its own clip, where its file says how it was found; what a frame set has of it suits
        # no other.
        here, there = as_any_clip(options.genotype), as_any_clip(network["genotype"])
        own = set(here.provenance or ())
        if listed_frames(here) is not None or listed_frames(there) is not None:
            own |= {"T", "schedule"}
        found = {name: value for name, value in found.items() if _CLIP.get(name) not in own}
    return found


def _fusion(run: TrainedRun, given: set[str]) -> str:
    """The name of the run's fusion; raises `InputError` where its settings are others than the name stands for."""
    config = config_from_dict(run.network["fusion"])
    if config != resolve_fusion(config.name) and "fusion" not in given:
        folder = run.folder / PRETRAINED
        where = f"give --weights {folder}" if folder.is_dir() else "load it in Python, with VideoWrap"
        raise InputError(f"the run {run.folder} has the fusion {config}, which no name of --fusion stands for; {where}")
    return config.name


def _aggregate(run: TrainedRun, given: set[str]) -> str:
    """The name of the run's aggregation."""
    name = run.network["aggregate"]
    if name is None and "aggregate" not in given:
        raise InputError(f"the run {run.folder} aggregates by a function of its own; give --aggregate, or use Python")
    return str(name)


def _same(name: str, a: Any, b: Any) -> bool:
    """Whether two values of an option mean the same."""
    if name == "clip_at":
        return bool((a or IMAGE) == (b or IMAGE))
    if name == "genotype" and isinstance(a, str) and isinstance(b, str) and "none" not in (a, b):
        try:
            return as_any_clip(a) == as_any_clip(b)
        except Image2VideoError:
            return False
    return bool(plain_values({"": a}) == plain_values({"": b}))


def _text(value: Any) -> str:
    """A value as it is typed."""
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f'"{text}"' if " " in text else text
