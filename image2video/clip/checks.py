"""Checks of arguments that several modules take."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Collection, Sequence
from typing import ParamSpec

import torch
from torch import Tensor

from image2video.clip.memory import check_frames_memory
from image2video.errors import InputError, InputTypeError
from image2video.trace.capture import refuse_symbols

_Arguments = ParamSpec("_Arguments")
_OTHER_NAMES = dict.fromkeys(
    ("num_frames", "n_frames", "nframes", "num_segments", "n_segment", "clip_len", "clip_length", "t"), "T"
)
"""What other libraries call our arguments."""


def names_explained(init: Callable[_Arguments, None]) -> Callable[_Arguments, None]:
    """Let a constructor answer a keyword argument that it does not have with the one that was meant."""
    known = tuple(inspect.signature(init).parameters)[1:]

    @functools.wraps(init)
    def checked(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        for name in kwargs:
            if name not in known:
                near = meant_name(name, known)
                meant = "" if near is None else f"; write {near}="
                raise InputTypeError(
                    f"{type(args[0]).__name__} got an unknown argument {name}={kwargs[name]!r:.40}{meant}; "
                    f"it knows {', '.join(known)}"
                )
        init(*args, **kwargs)

    return checked


def meant_name(name: str, known: Collection[str]) -> str | None:
    """Return which of the known arguments a name stands for that is none of them; None where no one is near."""
    near = [_OTHER_NAMES[name]] if name in _OTHER_NAMES else difflib.get_close_matches(name, known, n=1)
    return near[0] if near and near[0] in known else None


def check_frames(T: object) -> int:
    """Return the number of frames; `InputTypeError` for bools, floats and others, `InputError` below 1."""
    if isinstance(T, bool) or not isinstance(T, int):
        raise InputTypeError(f"T, the number of frames, must be an integer of at least 1, got {T!r}")
    if T < 1:
        raise InputError(f"T, the number of frames, must be at least 1, got {T}")
    check_frames_memory(T)
    return T


def check_choice(what: str, value: object, choices: Sequence[str]) -> str:
    """Return the value if it is one of the choices; otherwise `InputError` lists them."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"unknown {what} {value!r:.80}; choose one of {', '.join(choices)}")
    return value


def check_size(size: object, name: str) -> tuple[int, int]:
    """Return (height, width); `InputError` for anything else than two sizes of at least 1."""
    if not isinstance(size, tuple | list) or len(size) != 2 or min(size) < 1:
        raise InputError(f"{name} must be (height, width), both at least 1, got {size!r}")
    return size[0], size[1]


def _kind(value: object) -> str:
    """Name the type of a value, with the package where it is not Python's own."""
    kind = type(value)
    package = kind.__module__.partition(".")[0]
    return kind.__name__ if package == "builtins" else f"{package}'s {kind.__name__}"


def _way_to_tensor(images: object) -> str:
    """Say how what came instead of a tensor becomes one."""
    first = images[0] if isinstance(images, list | tuple) and images else images
    package = type(first).__module__.partition(".")[0]
    if package == "PIL":
        return (
            "apply the transform of the backbone's training (timm.data.create_transform, torchvision's Compose) to "
            "each, and torch.stack the results"
        )
    if package == "numpy":
        return (
            "make it one with torch.from_numpy, bring its axes into the order (B, C, H, W), and convert it to float "
            "and normalise it as the backbone was trained"
        )
    if first is images:
        return "pass a batch of normalised images"
    return (
        "torch.stack normalised images (C, H, W); of a detector, which takes lists and whose boxes of moved frames do "
        "not correspond, wrap the features alone: detector.backbone.body = VideoWrap(detector.backbone.body, …)"
    )


def check_images(images: object) -> None:
    """Raise `InputTypeError` for what is no floating-point tensor, `InputError` for other shapes than (B, C, H, W)."""
    refuse_symbols(images, "a model that makes clips")
    if not isinstance(images, Tensor):
        raise InputTypeError(f"images must be a tensor (B, C, H, W), got {_kind(images)}; {_way_to_tensor(images)}")
    if images.dtype == torch.uint8:
        raise InputTypeError(
            "images are uint8; convert them to float and normalise them as the backbone was trained, for example with "
            "torchvision.transforms.v2: Compose([ToDtype(torch.float32, scale=True), Normalize(mean, std)])"
        )
    if not images.is_floating_point():
        raise InputTypeError(f"images must be floating point (B, C, H, W), got {images.dtype}")
    if images.ndim != 4:
        raise InputError(f"images must have the shape (B, C, H, W), got {tuple(images.shape)}")
    if min(images.shape[-2:]) < 1:
        raise InputError(f"images must have at least one pixel, got the shape {tuple(images.shape)}")
