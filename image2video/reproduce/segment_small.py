"""What makes a mmsegmentation config small: options for crops of 64 pixels, a few images per step, random weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

SIDE = 64
"""Pixels of the shorter side of a small crop."""

_LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
_SIZES = ("scale", "crop_size", "size", "stride", "img_scale")


def small_options(config: Mapping[str, Any], *, batch_size: int) -> dict[str, Any]:
    """Options (`--cfg-options`) that make the images of a config small; its network stays what it is.

    All sizes of the pipelines, of the data preprocessor and of sliding windows are divided by the whole number that
    brings the shorter side of a crop to about 64 pixels. No weights are fetched, no worker processes start, and
    `batch_size` images make a training step.
    """
    crop = config["model"]["data_preprocessor"]["size"]
    factor = max(1, min(crop) // SIDE)
    found: dict[str, Any] = {}
    for path, key, value in _entries({name: config[name] for name in ("model", *_LOADERS) if config.get(name)}, ""):
        inside_model = path.startswith("model.")
        if key in _SIZES and _is_size(value) and (not inside_model or path.split(".")[1] in _MODEL_PARTS):
            found[path] = tuple(max(1, side // factor) for side in value)
        elif inside_model and key == "pretrained" and value:
            found[path] = None if isinstance(value, str) else False
        elif inside_model and key == "init_cfg" and isinstance(value, Mapping) and value.get("type") == "Pretrained":
            found[path] = None
    for name in _LOADERS:
        if config.get(name):
            found |= {f"{name}.num_workers": 0, f"{name}.persistent_workers": False}
    return found | {"train_dataloader.batch_size": batch_size}


_MODEL_PARTS = ("data_preprocessor", "test_cfg")
"""Where a model states sizes of images; elsewhere they are those of kernels."""


def _entries(value: Any, path: str) -> Iterator[tuple[str, str, Any]]:
    """Every key below a value: (its dotted path, itself, its value)."""
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, part in pairs:
        inner = f"{path}.{key}" if path else str(key)
        yield inner, str(key), part
        if isinstance(part, Mapping) or (isinstance(part, list | tuple) and any(isinstance(x, Mapping) for x in part)):
            yield from _entries(part, inner)


def _is_size(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(side, int) for side in value)
