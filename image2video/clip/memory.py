"""What a call would need against what the machine has, said before any of it is asked for."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from image2video.errors import InputError

_SMALL = 1 << 28
"""Bytes that every machine has: below, nothing is looked up."""
_CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def check_memory(needed: int, what: str, advice: str, *, device: torch.device | str = "cpu") -> None:
    """Raise `InputError` where a call needs more bytes than the machine (or the GPU) has in all.

    Args:
        needed: bytes that it holds at once, at the least.
        what: the call, in words.
        advice: what makes it smaller.
        device: where the memory is.

    """
    if needed < _SMALL:
        return
    device = torch.device(device)
    have, where = _memory(device)
    if have is not None and needed > have:
        raise InputError(f"{what} would need {size_text(needed)}, {where} has {size_text(have)}; {advice}")


def check_clip_memory(images: Tensor, T: int) -> None:
    """Raise `InputError` where the clip of images `(B, C, H, W)` is larger than the memory of their device."""
    # A graph's sizes are symbols, which must not decide anything; they were checked when the model was called.
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    B, C, H, W = images.shape
    _check_clip((B, C, H, W), T, images.element_size(), images.device)


def check_frames_memory(T: int, image_size: object = None) -> None:
    """Raise `InputError` for a T at which one float32 image of the size (C, H, W) has no clip in this machine.

    Where the size is not known, or is none, a frame is its matrix alone.
    """
    needed = 9 * 8 * T
    if needed >= _SMALL:  # torch 2.11 compiles no text of a T that is a symbol
        check_memory(needed, f"T={T}: the matrices of the frames", "lower T")
    if isinstance(image_size, Sequence) and len(image_size) == 3 and all(isinstance(n, int) for n in image_size):
        _check_clip((1, *image_size), T, 4, torch.device("cpu"))


def size_text(count: float) -> str:
    """Bytes in words: `190 GB`."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while count >= 999.5 and len(units) > 1:
        count /= 1000
        del units[0]
    return f"{count:,.0f} {units[0]}" if count >= 99.5 else f"{count:.3g} {units[0]}"


def _check_clip(shape: tuple[int, ...], T: int, item: int, device: torch.device) -> None:
    B, C, H, W = shape
    images = "an image" if B == 1 else f"{B} images"
    what = f"T={T}: the clip of {images} of {C}×{H}×{W}"
    check_memory(B * T * C * H * W * item, what, "lower T, the batch or the size of the images", device=device)


def _memory(device: torch.device) -> tuple[int | None, str]:
    """The bytes that a device has in all, None where that is not known, and its name."""
    if device.type == "cpu":
        return machine_memory(), "this machine"
    if device.type == "cuda" and torch.cuda.is_available():
        return torch.cuda.get_device_properties(device).total_memory, "the GPU"
    if device.type == "mps":
        return torch.mps.recommended_max_memory(), "the GPU"
    return None, device.type


@functools.cache
def machine_memory() -> int | None:
    """The bytes that this process can have: of the machine, or of its container; None where neither is known."""
    limits = []
    if hasattr(os, "sysconf") and {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= set(os.sysconf_names):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in _CONTAINER_LIMITS:
        try:
            limits.append(int(path.read_text()))
        except (OSError, ValueError):  # not a container, or one without a limit ("max")
            continue
    return min((limit for limit in limits if limit > 0), default=None)
