"""The JSON config of a saved wrapper: read, and checked value by value before anything is built from it.

A config comes from anywhere. So nothing in it is a path, an address or the name of a repository, unless the caller asks
for that; and its numbers are bounded before memory is taken for them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from image2video.clip.options import ClipOptions
from image2video.errors import InputError
from image2video.runs.texts import MAX_TEXT_BYTES, read_json
from image2video.wrap.builders import is_registered, own_check

LIBRARY = "image2video"
SCHEMA_VERSION = 1
INSIDE_VERSION = 2
"""Of a clip that begins inside of the backbone: readers of version 1 alone refuse it as newer than they are."""
DEEP_VERSION = 3
"""Of a clip at several places, which its genotype names: earlier readers refuse it as newer than they are."""
CLIP = tuple(ClipOptions().arguments())
OPTIONS = ("aggregate", "residual", "freeze_bn")
MAX_FRAMES = 100_000
MAX_IMAGE = 2**28
"""Numbers of an image, C·H·W."""
MAX_NUMBER = 100_000
"""Of a whole number among a builder's arguments, where no saved tensor is as large."""

_LATER = ("mean", "std", "frames", "clip_at")  # older configs do not have them
_MODEL = re.compile(r"[\w+-]+:[\w.+-]+")
_PLACE = re.compile(r"[/\\:]|\.(?:json|ya?ml|pth?|safetensors|bin|npz)\b", re.IGNORECASE)
_PLACE_WORDS = {
    *("cache", "cfg", "checkpoint", "config", "dir", "file", "filename", "folder", "hub"),
    *("path", "pretrained", "repo", "revision", "root", "url", "weights"),
}


def read_config(path: Path) -> dict[str, Any]:
    """Read the config that `save_pretrained` wrote.

    Raises:
        InputError: any other JSON, a missing or an unknown key, or a value of another type; the message names the file
            and the key.

    """
    config = read_json(path, "config", max_bytes=MAX_TEXT_BYTES)
    if not isinstance(config, Mapping) or config.get("library") != LIBRARY:
        raise InputError(f"{path} is not a config of image2video; it must be written by save_pretrained")
    version = config.get("schema_version")
    if version not in (SCHEMA_VERSION, INSIDE_VERSION, DEEP_VERSION) or isinstance(version, bool):
        raise InputError(
            f"{path} has schema_version {version!r:.80}, this version of image2video reads {SCHEMA_VERSION} … "
            f"{DEEP_VERSION}; install the version that wrote it"
        )
    known = {"library", "schema_version", *_FORMS}
    wrong = sorted(known ^ (set(config) | set(_LATER)))
    if wrong:
        raise InputError(f"{path} has missing or unknown keys: {', '.join(wrong):.300}")
    filled = {**dict.fromkeys(_LATER), **config}
    for key, (words, fits) in _FORMS.items():
        if not fits(filled[key]):
            raise InputError(f"{path}: {key} must be {words}, got {filled[key]!r:.80}")
    clip = [key for key in ("genotype", *CLIP) if key not in ("mean", "std")]
    none = [key for key in clip if filled[key] is None]
    if none != (clip if filled["frames"] is not None else []):
        raise InputError(
            f"{path}: expected either frames or {', '.join(clip)}, got null for {', '.join(none) or 'none'}"
        )
    return filled


def check_local(config: Mapping[str, Any], source: str, *, largest: int) -> None:
    """Refuse a config whose builder or frame source could fetch something, or take memory without bounds.

    Args:
        config: what `read_config` returned.
        source: names it in messages.
        largest: the largest dimension of a saved tensor.

    Raises:
        InputError: a place, or a number beyond all bounds; the message names the key.
    """
    advice = "pass allow_download=True where you trust the config, or backbone=…"
    builder = config["builder"]
    own = None if builder is None else own_check(str(builder["name"]))
    if own is not None:
        own(builder["name"], builder["kwargs"], source)
    elif builder is not None:
        # What the program itself has registered may be called after a file, as `my_nets.py:net`.
        if not is_registered(str(builder["name"])) and not _MODEL.fullmatch(str(builder["name"])):
            raise InputError(
                f"{source}: builder.name must be BUILDER:MODEL without a place, got {builder['name']!r:.80}; {advice}"
            )
        for where, value in _values(builder["kwargs"], "builder.kwargs"):
            named = set(where.rpartition("kwargs")[2].lower().replace(".", "_").split("_")) & _PLACE_WORDS
            if where != "builder.kwargs.pretrained" and named and value not in (None, False, ""):
                raise InputError(f"{source}: {where} may name a place to fetch from, got {value!r:.80}; {advice}")
            if isinstance(value, str) and _PLACE.search(value):
                raise InputError(f"{source}: {where} may hold no place, got {value!r:.80}; {advice}")
            if isinstance(value, int | float) and not abs(value) <= max(MAX_NUMBER, largest):
                raise InputError(
                    f"{source}: {where} must be at most {max(MAX_NUMBER, largest)}, since no saved tensor is as large, "
                    f"got {value!r:.80}"
                )
    for where, value in _values(config["frames"], "frames"):
        if isinstance(value, str) and re.search(r"[/\\]|\.(?:json|ya?ml)\b", value, re.IGNORECASE):
            raise InputError(
                f"{source}: {where} may hold no path, got {value!r:.80}; pass allow_download=True where you trust the "
                "config"
            )


def _values(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Go through the plain values inside a JSON value, and empty containers, each with its place."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _values(inner, f"{where}.{key:.40}")
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from _values(inner, f"{where}[{index}]")
    else:
        yield where, value


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_size(value: Any) -> bool:
    """Whether a value is (C, H, W); three zeros stand for a size that is not known."""
    if not isinstance(value, list) or len(value) != 3 or not all(_is_whole(n, 0, MAX_IMAGE) for n in value):
        return False
    return value == [0, 0, 0] or 0 < value[0] * value[1] * value[2] <= MAX_IMAGE


def _is_sites(value: Any) -> bool:
    """Whether a value is a list of site records, each with another name."""
    if not isinstance(value, list) or len(value) > MAX_NUMBER or not all(_is_object(site) for site in value):
        return False
    if any(set(site) != {"name", "placement", "channels", "layout"} for site in value):
        return False
    fit = all(
        _is_text(site["name"])
        and _is_text(site["placement"])
        and _is_whole(site["channels"], 1, 2**31)
        and _is_object(site["layout"])
        for site in value
    )
    return fit and len({site["name"] for site in value}) == len(value)


def _is_builder(value: Any) -> bool:
    return value is None or (
        isinstance(value, Mapping)
        and set(value) == {"name", "kwargs"}
        and _is_text(value["name"])
        and _is_object(value["kwargs"])
    )


def _or_none(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


def _is_values(value: Any) -> bool:
    """Whether a value is a number, or a list of numbers: a mean or a std."""
    numbers = value if isinstance(value, list) else [value]
    return all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers)


_FORMS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "genotype": ("an object", _or_none(_is_object)),
    "T": (f"a whole number, 1 … {MAX_FRAMES}", _or_none(lambda value: _is_whole(value, 1, MAX_FRAMES))),
    "schedule": ("a text", _or_none(_is_text)),
    "padding": ("a text", _or_none(_is_text)),
    "interpolation": ("a text", _or_none(_is_text)),
    "mean": ("a list of numbers", _or_none(_is_values)),
    "std": ("a list of numbers", _or_none(_is_values)),
    "frames": ("an object", _or_none(_is_object)),
    "aggregate": ("a text", _is_text),
    "residual": ("true or false", _is_bool),
    "clip_at": ("null or the name of a module", _or_none(_is_text)),
    "freeze_bn": ("true or false", _is_bool),
    "fusion": ("an object", _is_object),
    "sites": ("a list of sites with name, placement, channels and layout", _is_sites),
    "input_size": (f"[C, H, W] with at most {MAX_IMAGE} numbers", _is_size),
    "builder": ("null or an object with name and kwargs", _is_builder),
    "versions": ("an object", _is_object),
}
"""What every key must hold, in words and as a check."""
