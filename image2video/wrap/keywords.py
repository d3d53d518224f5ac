"""Calls by keyword: the images under the backbone's own name for them, and flags for the backbone."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from image2video.errors import InputTypeError, UnsupportedError


def image_name(backbone: nn.Module) -> str | None:
    """Return what the backbone calls its first argument; None where it has no name."""
    try:
        parameters = [*inspect.signature(backbone.forward).parameters.values()]
    except (TypeError, ValueError):
        return None
    named = parameters and parameters[0].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    return parameters[0].name if named else None


def images_and_flags(
    images: Tensor | None, keywords: dict[str, Any], name: str | None
) -> tuple[Tensor, dict[str, Any]]:
    """Split a call into the images and the keywords that go on to the backbone.

    Args:
        images: the first argument of the wrapper.
        keywords: those that are not the wrapper's own.
        name: what the backbone calls its images.

    Returns:
        The images, and the keywords for the backbone, which sees the frames: flags, no tensors.

    Raises:
        InputTypeError: no images, or two.
        UnsupportedError: a keyword with a tensor, whose rows would be of images, not of their frames.
    """
    also = f" or {name}=" if name not in (None, "images") else ""
    flags = dict(keywords)
    if name in flags:
        if images is not None:
            raise InputTypeError(f"got images twice, as the first argument and as {name}=; pass them once")
        images = flags.pop(name)
    if images is None:
        raise InputTypeError(f"got no images; pass (B, C, H, W) as the first argument, as images={also}")
    held = [key for key, value in flags.items() if _holds_tensor(value)]
    if held:
        raise UnsupportedError(
            f"got a tensor as {', '.join(held)}=, which has a row per image, where the backbone sees T frames of each; "
            "only flags are passed on: compute the loss from what the model returns, outside of it"
        )
    return images, flags


def _holds_tensor(value: Any) -> bool:
    """Whether a value is a tensor, or holds one."""
    if isinstance(value, Mapping):
        value = [*value.values()]
    return isinstance(value, Tensor) or (isinstance(value, tuple | list) and any(_holds_tensor(v) for v in value))
