"""Calls by keyword: the images under their names, labels for the backbone's own loss, and flags for the backbone."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from image2video.errors import InputTypeError, UnsupportedError

IMAGES = ("images", "pixel_values")
"""What `VideoWrap.forward` itself calls the images."""

OF_IMAGES = ("encode_image", "get_image_features")
"""What networks of images and texts call their method for images: open_clip's, and transformers'."""

LOSS_WORDS = ("num_items_in_batch",)
"""Keywords beside the labels that a loss takes: the count of a whole batch, in transformers' Trainer."""


class Call(NamedTuple):
    """What a call gives.

    Args:
        images: `(B, C, H, W)`.
        flags: keywords for the backbone, which sees the frames.
        loss: keywords for the backbone's own loss, which sees the images; empty where no loss is asked for.
    """

    images: Tensor
    flags: dict[str, Any]
    loss: dict[str, Any]


def image_name(backbone: nn.Module) -> str | None:
    """Return what the backbone calls its first argument; None where it has no name."""
    parameters = [*parameters_of(backbone).values()]
    named = parameters and parameters[0].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    return parameters[0].name if named else None


def parameters_of(backbone: nn.Module) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a backbone's forward; none where they cannot be told."""
    try:
        return inspect.signature(backbone.forward).parameters
    except (TypeError, ValueError):
        return {}


def read_call(backbone: nn.Module, given: Mapping[str, Any], keywords: Mapping[str, Any], name: str | None) -> Call:
    """Split a call into the images, the keywords that go on to the backbone, and those of its loss.

    Args:
        backbone: the backbone.
        given: the wrapper's own arguments: the images by each of their names, and `labels`.
        keywords: those that are not the wrapper's own.
        name: what the backbone calls its images.

    Returns:
        The call. Without labels its `loss` is empty, and what a loss alone takes is left out.

    Raises:
        InputTypeError: no images, or two; something else than a tensor.
        UnsupportedError: labels for a backbone that takes none, or another keyword with a tensor, whose rows would be
            of images, not of their frames.
    """
    flags = dict(keywords)
    images = _images(given, flags, name)
    words = {key: flags.pop(key) for key in LOSS_WORDS if key in flags}
    labels = given.get("labels")
    _refuse_tensors(flags)
    if labels is None:
        return Call(images, flags, {})
    parameters = parameters_of(backbone)
    if "labels" not in parameters:
        raise UnsupportedError(
            f"got labels=, and the forward of {type(backbone).__name__} takes none ({', '.join(parameters)}), so it "
            "has no loss of its own; compute the loss from what the model returns, outside of it"
        )
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        words = {key: value for key, value in words.items() if key in parameters}
    return Call(images, flags, {"labels": labels, **words})


def refuse_second(backbone: nn.Module, value: Any) -> None:
    """Raise `InputTypeError` for a tensor in the place of T, the second of a call."""
    if not _holds_tensor(value):
        return
    came = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__} with tensors"
    own = next((name for name in OF_IMAGES if callable(getattr(backbone, name, None))), None)
    advice = "compute a loss from what the model returns, outside of it"
    if own is not None:
        advice = (
            f"call {own}(images) of the wrapper, which sees a clip of each, and the network's other methods for the "
            "rest; or wrap the tower of the images alone: net.visual = VideoWrap(net.visual, …)"
        )
    raise InputTypeError(
        f"got {came} as the second argument, which is T, the number of frames; a wrapped {type(backbone).__name__} "
        f"takes images alone: {advice}"
    )


def _images(given: Mapping[str, Any], flags: dict[str, Any], name: str | None) -> Tensor:
    """Return the images, and take them out of the flags where they have the backbone's name."""
    found = {key: given[key] for key in IMAGES if given.get(key) is not None}
    if name in flags:
        found[name] = flags.pop(name)
    if len(found) > 1:
        first, second = list(found)[:2]
        one = "the first argument" if first == "images" else f"{first}="
        raise InputTypeError(f"got images twice, as {one} and as {second}=; pass them once")
    known = [f"{key}=" for key in dict.fromkeys((*IMAGES, name)) if key is not None]
    names = f"{', '.join(known[:-1])} or {known[-1]}"
    if not found:
        raise InputTypeError(f"got no images; pass (B, C, H, W) as the first argument, as {names}")
    (images,) = found.values()
    if isinstance(images, Mapping):
        held = ", ".join(map(str, images))
        raise InputTypeError(
            f"images must be a tensor (B, C, H, W), got a {type(images).__name__} with {held:.200}; pass the tensor of "
            "images alone, and compute the loss of other entries from what the model returns"
        )
    return images  # what is no tensor otherwise is refused where shapes are


def _refuse_tensors(flags: Mapping[str, Any]) -> None:
    """Raise `UnsupportedError` for keywords with a tensor."""
    held = [key for key, value in flags.items() if _holds_tensor(value)]
    if held:
        raise UnsupportedError(
            f"got a tensor as {', '.join(held)}=, which has a row per image, where the backbone sees T frames of each; "
            "only labels= and flags are passed on: compute the loss from what the model returns, outside of it; of a "
            "network of images and texts, wrap the tower of the images alone: net.visual = VideoWrap(net.visual, …)"
        )


def _holds_tensor(value: Any) -> bool:
    """Whether a value is a tensor, or holds one."""
    if isinstance(value, Mapping):
        value = [*value.values()]
    return isinstance(value, Tensor) or (isinstance(value, tuple | list) and any(_holds_tensor(v) for v in value))
