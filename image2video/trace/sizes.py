"""The images that a plan traces: of the size that is given, or that the backbone's own config names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from image2video.errors import InputError, InputTypeError


def example_for(backbone: nn.Module, input_size: Sequence[int] | None, example_input: Tensor | None) -> Tensor:
    """Return one image `(1, C, H, W)` to trace: from `example_input`, `input_size`, or the backbone's own size.

    Raises:
        InputError: no size is known, or what came is no size of an image.
        InputTypeError: an example that is no floating-point tensor.
    """
    if example_input is not None:
        if input_size is not None:
            raise InputError("got input_size and example_input together; pass one of them")
        return _checked_example(example_input)
    given = input_size if input_size is not None else nominal_size(backbone)
    if given is None:
        raise InputError(
            f"no input size is known for {type(backbone).__name__}: it has no pretrained_cfg['input_size'] and no "
            "config.image_size; pass input_size=(C, H, W), for example input_size=(3, 224, 224), or "
            "example_input=images"
        )
    if not isinstance(given, Sequence) or len(given) != 3 or not all(_is_size(n) for n in given):
        raise InputError(f"input_size must be three positive whole numbers (C, H, W), got {given!r}")
    like = next((p for p in backbone.parameters() if p.is_floating_point()), torch.empty(0))
    return torch.zeros((1, *given), dtype=like.dtype, device=like.device)


def _is_size(n: Any) -> bool:
    """Whether a value is a positive whole number."""
    return isinstance(n, int) and not isinstance(n, bool) and n > 0


def nominal_size(backbone: nn.Module) -> tuple[int, ...] | None:
    """Return `(C, H, W)` of the images that a backbone is made for; None where it does not tell.

    timm's config describes the source of the weights. The `in_chans` and `img_size` that the model itself was made with
    come before it. Other networks have a `config` with `image_size` and `num_channels`, as those of transformers.
    """
    size = _configured(backbone, "pretrained_cfg") or _configured(backbone, "default_cfg") or None
    if size is None:
        size = _of_config(getattr(backbone, "config", None))
    if size is None or len(size) != 3:
        return size
    channels, height, width = size
    traits = getattr(backbone, "_traits", None) or {}
    height, width = traits.get("img_size") or (height, width)
    in_chans = getattr(backbone, "in_chans", None)
    if isinstance(in_chans, int):
        channels = in_chans
    return channels, height, width


def _configured(backbone: nn.Module, name: str) -> tuple[int, ...] | None:
    """Return the input size that a config says, which is a mapping or an object."""
    config = getattr(backbone, name, None)
    size = config.get("input_size") if isinstance(config, Mapping) else getattr(config, "input_size", None)
    return None if size is None else tuple(size)


def _of_config(config: Any) -> tuple[int, ...] | None:
    """Return the input size that a config tells by `image_size`: one number, (height, width), or both by name."""
    if (inner := getattr(config, "pretrained_cfg", None)) is not None:  # of a network of timm in one of transformers
        size = inner.get("input_size") if isinstance(inner, Mapping) else getattr(inner, "input_size", None)
        return None if size is None else tuple(size)
    channels, size = getattr(config, "num_channels", None), getattr(config, "image_size", None)
    if isinstance(size, Mapping):
        size = [size.get("height"), size.get("width")]
    sides = [size, size] if _is_size(size) else size
    if not isinstance(sides, Sequence) or len(sides) != 2 or not all(_is_size(n) for n in (channels, *sides)):
        return None
    return (channels, *sides)


def _checked_example(example: Any) -> Tensor:
    """Return the first of the example images."""
    if not isinstance(example, Tensor):
        raise InputTypeError(f"example_input must be images (B, C, H, W), got a {type(example).__name__}")
    if example.ndim != 4 or 0 in example.shape:
        raise InputError(f"example_input must be images (B, C, H, W), got shape {tuple(example.shape)}")
    if not example.is_floating_point():
        raise InputTypeError(
            f"example_input must be floating-point images, got {example.dtype}; convert and normalise them"
        )
    return example[:1].detach()
