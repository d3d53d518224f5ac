"""The clip of a model as one tensor of its state dict: text that says how frames are made, fused and averaged.

It is no buffer, since moving averages would average its bytes: torch's extra state is asked for anew by every
`state_dict()`, and FSDP and distributed checkpoints know its key. A tensor, since safetensors holds nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from image2video.clip.any_clip import parse_any_clip
from image2video.clip.deep_clip import DeepClip
from image2video.clip.deep_text import is_deep_text
from image2video.clip.deep_video import DeepVideo
from image2video.clip.frame_sources import FrameSource, source_record
from image2video.clip.image_to_video import Image2Video
from image2video.errors import InputError
from image2video.inject.api import Injection
from image2video.trace.places import IMAGE

CLIP = "_extra_state"
"""The key of the clip below the model's own prefix: torch's name for what a module's state holds beside tensors."""

CLIP_OPTIONS = ("genotype", "T", "schedule", "padding", "interpolation", "mean", "std")
FUSION_OPTIONS = ("fusion", "sites", "residual", "clip_at")
_FORMAT_KEY = "image2video"
_FORMAT = 1
_INSIDE_FORMAT = 2
"""Of a clip that begins inside of the backbone: readers of format 1 alone refuse it as newer than they are."""
_DEEP_FORMAT = 3
"""Of a clip at several places, which `clip_at` lists: earlier readers refuse it as newer than they are."""
_FORMATS = (_FORMAT, _INSIDE_FORMAT, _DEEP_FORMAT)
_BLOCK = 1024
_LONGEST_T = 20  # digits
_SHOWN = 120  # characters of one value in a message
_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("genotype", "schedule", "padding", "interpolation", "aggregate"), (str,)),
    "clip_at": (str, list),
    **dict.fromkeys(("mean", "std"), (list, float, int)),
    **dict.fromkeys(("frames", "fusion"), (dict,)),
    "T": (int,),
    "sites": (list,),
    "residual": (bool,),
}


Video = Image2Video | DeepVideo | FrameSource
"""What makes the frames of a wrapper."""


class ClipWarning(UserWarning):
    """A checkpoint was loaded whose clip is another than the model's or is not known, or a clip that shows little."""


def record_of(to_video: Video, injection: Injection, residual: bool, aggregate: Any = None) -> dict[str, Any]:
    """Record the clip, the fusion and the aggregation of a model as JSON values.

    Args:
        to_video: what makes the frames; of a `FrameSource` its own record stands under `frames`.
        injection: the fusions at their sites.
        residual: whether the fusions started as the identity.
        aggregate: the name of the aggregation; a callable, which no file can hold, counts as not known.

    Returns:
        The arguments of `VideoWrap` by name; None for what has no effect or is not known.
    """
    if isinstance(to_video, FrameSource):
        clip: dict[str, Any] = dict.fromkeys(CLIP_OPTIONS)
        frames = {name: value for name, value in source_record(to_video).items() if name != "T"}
    else:
        clip, frames = {"genotype": str(to_video.genotype), **to_video.options.to_dict()}, None
        if to_video.genotype.is_geometric:
            clip.update(mean=None, std=None)
    return {
        **clip,
        "T": to_video.T,
        "frames": frames,
        "fusion": injection._plan.fusion.to_dict(),
        "sites": list(injection._plan.names),
        "residual": residual if injection._plan.names else None,
        "clip_at": [*injection._plan.places] if injection._plan.later_sites else injection._plan.places[0],
        "aggregate": aggregate if isinstance(aggregate, str) else None,
    }


def encode(record: Mapping[str, Any], module: nn.Module) -> Tensor:
    """Write a record as a tensor.

    Args:
        record: what `record_of` returned.
        module: its owner. The tensor is on the device of its first parameter, as moving averages and distributed
            checkpoints expect of a state dict; on the CPU where that holds no values (`meta`).

    Returns:
        `(N,)` uint8: ASCII, filled up with spaces. N does not depend on T, so that a model and the moving average of it
        still fit each other after `set_frames`.
    """
    # A clip of the image is written as before there were others.
    place = record.get("clip_at", IMAGE)
    written = {name: value for name, value in record.items() if name != "clip_at" or place != IMAGE}
    several = isinstance(place, list)
    version = _DEEP_FORMAT if several else _FORMAT if place == IMAGE else _INSIDE_FORMAT
    text = json.dumps({_FORMAT_KEY: version, **written})
    blocks = -(-(len(text) - len(str(record["T"])) + _LONGEST_T) // _BLOCK)
    data = torch.frombuffer(bytearray(text.ljust(blocks * _BLOCK), "ascii"), dtype=torch.uint8)
    first = next(module.parameters(), None)
    return data if first is None or first.device.type == "meta" else data.to(first.device)


def decode(state: Any) -> dict[str, Any]:
    """Read what `encode` wrote.

    Args:
        state: the tensor; in floating point too, as checkpoints have it that were cast or averaged as a whole.

    Returns:
        The record.

    Raises:
        InputError: anything else, or a record of a later version.
    """
    try:
        values = state.detach().cpu().flatten()
        if values.is_floating_point():
            values = values.float().round()
        record = json.loads(bytes(values.to(torch.uint8).tolist()).decode("ascii"))
        version = record.pop(_FORMAT_KEY)
        if version in _FORMATS:
            record.setdefault("clip_at", IMAGE)
            _check(record)
    except (AttributeError, KeyError, RecursionError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"the checkpoint's clip (the key {CLIP!r}) cannot be read ({type(error).__name__}); it must be the tensor "
            "that the model's state_dict() gave; delete the key to load the weights without their clip"
        ) from error
    if version not in _FORMATS:
        raise InputError(
            f"the checkpoint's clip has the format {version!r}, this version of image2video reads {_FORMAT} … "
            f"{_DEEP_FORMAT}; install the version that wrote it, or delete the key {CLIP!r} to load the weights "
            "without their clip"
        )
    return dict(record)


def _check(record: Mapping[str, Any]) -> None:
    """Raise `TypeError` or `KeyError` for a record that `record_of` cannot have written."""
    for name, kinds in _TYPES.items():
        if not isinstance(record.get(name), (*kinds, type(None))):
            raise TypeError(name)
    if record.get("T") is None or (record.get("genotype") is None and record.get("frames") is None):
        raise KeyError("genotype")
    names = [*(record.get("sites") or ())]
    if isinstance(record["clip_at"], list):
        names += record["clip_at"]
        deep = parse_any_clip(record["genotype"]) if record.get("genotype") is not None else None
        if not isinstance(deep, DeepClip) or len(deep.sites) < 2 or [*deep.places] != record["clip_at"]:
            raise ValueError("clip_at")
    elif record.get("genotype") is not None and is_deep_text(record["genotype"]):
        raise ValueError("clip_at")
    if not all(isinstance(name, str) for name in names):
        raise TypeError("sites")


def is_clip(value: Any) -> bool:
    """Say whether a value of a state dict is a record, and no other module's extra state."""
    start = f'{{"{_FORMAT_KEY}":'
    if not isinstance(value, Tensor) or value.device.type == "meta" or value.ndim != 1 or len(value) < _BLOCK:
        return False
    return bytes(value[: len(start)].float().round().to(torch.uint8).tolist()) == start.encode()


def differing(saved: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """List the options in which two records differ; what one of them does not know is left out."""
    sources = saved.get("frames"), own["frames"]
    names = []
    for name, now in own.items():
        if name == "frames" or (name in CLIP_OPTIONS and name != "T" and sources != (None, None)):
            continue
        was = saved.get(name)
        if was is not None and now is not None and was != now:
            names.append(name)
    if sources[0] != sources[1]:
        names.append("frames")
    return names


def describe(names: list[str], saved: Mapping[str, Any], own: Mapping[str, Any], key: str = "") -> str:
    """Name options of both records in a message: what the model has, and what the checkpoint has."""
    parts = []
    for name in names:
        now, was = _text(name, own), _text(name, saved)
        # Long values are cut to the place where they differ.
        pairs = enumerate(zip(now, was, strict=False))
        same = next((place for place, (ours, theirs) in pairs if ours != theirs), min(len(now), len(was)))
        parts.append(f"{key}{name}={_cut(now, same)}, the checkpoint has {_cut(was, same)}")
    return "; ".join(parts)


def _text(name: str, record: Mapping[str, Any]) -> str:
    """Show one option; where no source draws the frames, they are shown by their genotype."""
    value = record.get(name)
    return f"None (genotype={record.get('genotype')!r})" if name == "frames" and value is None else repr(value)


def _cut(text: str, place: int) -> str:
    """Cut a text to its part about a place."""
    start = max(place - _SHOWN // 2, 0) if len(text) > _SHOWN else 0
    end = start + _SHOWN
    return ("…" if start else "") + text[start:end] + ("…" if len(text) > end else "")
