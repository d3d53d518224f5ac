"""Networks of Hugging Face transformers: which ones cannot be wrapped whole, and how one is built from its config.

`VideoWrap(AutoModelForImageClassification.from_pretrained(…))` needs no import of this module: the core finds it by the
entry points `image2video.hosts` and `image2video.builders`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import transformers
from torch import nn

from image2video.functional import Builder, InputError, UnsupportedError

_NOT_OF_THE_NETWORK = ("_name_or_path", "transformers_version", "architectures", "auto_map", "dtype", "torch_dtype")
"""Entries of a config that say where it comes from, not what the network is."""

_TIMM = ("input_size", "fixed_input_size", "interpolation", "crop_pct", "mean", "std", "pool_size")
"""What a config of timm within one of transformers tells beside the places of weights."""

_FETCHES = {
    *("_name_or_path", "auto_map", "backbone", "custom_pipelines", "quantization_config", "use_pretrained_backbone"),
    *("pretrained", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"),
}
_PLACE = re.compile(r"[/\\:]|\.(?:json|ya?ml|pth?|safetensors|bin)\b", re.IGNORECASE)
_LABELS = ("id2label", "label2id", "label_names")
"""Entries that hold a user's own words for classes."""

_MOST = 1_000_000


class Transformers:
    """What is known of the networks of transformers (see `image2video.wrap.hosts.Host`)."""

    def check(self, backbone: nn.Module, aggregate: Any) -> None:
        """Refuse a network that predicts a set: what its queries find in one frame is in another order in the next.

        Args:
            backbone: the network.
            aggregate: as in `VideoWrap`; a callable, `"first"` and `"none"` mix no frames.

        Raises:
            UnsupportedError: a network with queries, whose name ends with a task of sets.
        """
        name = type(backbone).__name__
        if callable(aggregate) or aggregate in ("first", "none"):
            return
        # A class of one's own has another name than the one that it inherits its queries from.
        if not any(re.search(_SETS, kind.__name__) for kind in type(backbone).__mro__):
            return
        raise UnsupportedError(
            f"{name} predicts a set of objects, and those of several frames do not correspond, so they cannot be "
            "averaged; wrap the backbone inside of it, whose maps are, "
            f"{_path_of_backbone(backbone)} = VideoWrap({_path_of_backbone(backbone)}, input_size=(C, H, W)), or pass "
            'aggregate="first", "none", or a callable (outputs, T)'
        )

    def builder(self, backbone: nn.Module) -> Builder | None:
        """Return how to build a network from its config.

        Args:
            backbone: the network.

        Returns:
            The builder `transformers:CLASS` with the config; None for a class that is not transformers' own.
        """
        name = type(backbone).__name__
        if getattr(transformers, name, None) is not type(backbone):
            return None
        config: Any = backbone.config
        entries = _stripped(json.loads(config.to_json_string(use_diff=True)))
        return Builder(f"transformers:{name}", {"model_type": config.model_type, **entries})


HOST = Transformers()

_SETS = r"For(?:UniversalSegmentation|InstanceSegmentation|ObjectDetection|Segmentation)$"


def build(name: str, *, model_type: str, **config: Any) -> nn.Module:
    """Build a network of transformers from its config; its weights are drawn anew.

    Args:
        name: the class, such as `ViTForImageClassification`.
        model_type: of its config, such as `vit`.
        **config: the entries of the config.

    Returns:
        The network.

    Raises:
        InputError: a name that is no network of the installed transformers.

    >>> tiny = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32}
    >>> build("ViTForImageClassification", model_type="vit", **tiny).config.hidden_size
    8
    """
    kind = getattr(transformers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise InputError(f"transformers {transformers.__version__} has no network {name!r}; got {model_type!r} for it")
    if model_type not in transformers.CONFIG_MAPPING:
        raise InputError(
            f"transformers {transformers.__version__} knows no model_type {model_type!r}; got it for {name}"
        )
    made: nn.Module = kind(transformers.CONFIG_MAPPING[model_type].from_dict(config))
    return made


def check_local(name: str, kwargs: Mapping[str, Any], source: str) -> None:
    """Refuse a config from a file that could fetch something, or take memory without bounds.

    Args:
        name: the builder's name.
        kwargs: its arguments, the entries of the config.
        source: names the file in messages.

    Raises:
        InputError: an entry that names a place; the message names it.
    """
    advice = "pass allow_download=True where you trust the config, or backbone=…"
    for where, value in _values({key: value for key, value in kwargs.items() if key not in _LABELS}, ""):
        if set(where.split(".")) & _FETCHES and value not in (None, False, "", {}, []):
            raise InputError(
                f"{source}: {name} has {where}, which may name a place to fetch from, got {value!r:.80}; {advice}"
            )
        if isinstance(value, str) and _PLACE.search(value):
            raise InputError(f"{source}: {name} has {where}, which may hold no place, got {value!r:.80}; {advice}")
        if isinstance(value, int | float) and not abs(value) <= _MOST:
            raise InputError(f"{source}: {name} has {where}, which must be at most {_MOST}, got {value!r:.80}")


build.check_local = check_local  # type: ignore[attr-defined]  # what reads a file asks the builder for its own check


def _stripped(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config without the entries that say where it comes from, at any depth."""
    kept = {key: value for key, value in config.items() if key not in _NOT_OF_THE_NETWORK and key != "model_type"}
    inner = {key: _inner(value) for key, value in kept.items() if isinstance(value, dict) and key not in _LABELS}
    if isinstance(source := kept.get("pretrained_cfg"), dict):  # of timm: where weights came from is no part of it
        inner["pretrained_cfg"] = {key: source[key] for key in _TIMM if key in source}
    return {**kept, **inner}


def _inner(value: dict[str, Any]) -> dict[str, Any]:
    """Return a config within a config, which needs its own model type."""
    kind = {"model_type": value["model_type"]} if "model_type" in value else {}
    return {**kind, **_stripped(value)}


def _values(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Go through the plain values inside a JSON value, each with its place."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            if key not in _LABELS:
                yield from _values(item, f"{where}.{key}".lstrip("."))
    elif isinstance(value, list) and value:
        for item in value:
            yield from _values(item, where)
    else:
        yield where, value


def _path_of_backbone(backbone: nn.Module) -> str:
    """Name the backbone inside of a network of sets, for a message."""
    for name, module in backbone.named_modules():
        if name and isinstance(module, transformers.PreTrainedModel) and hasattr(module, "out_features"):
            return f"model.{name}"
    return "model.<its backbone>"
