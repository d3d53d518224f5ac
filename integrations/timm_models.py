"""Wrapped models in timm's registry: importing this module registers `i2v_` + every timm architecture.

    import timm
    import image2video.integrations.timm_models

    model = timm.create_model("i2v_resnet50.a1_in1k", T=5, fusion="gsf", genotype="translate_x(0.03)", num_classes=10)

Arguments of `VideoWrap` go to the wrapper, all others to the bare model. Tags, default configs, `pretrained=True` and
`pretrained_cfg_overlay` work as for the bare name. A checkpoint that is loaded into such a model brings the clip, the
fusion and the sites that it was trained with; what was given here stays, with a warning where the checkpoint differs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import timm
from timm.models import get_arch_pretrained_cfgs, register_model
from timm.models._pretrained import DefaultCfg, PretrainedCfg

from image2video.functional import Builder, InputTypeError, VideoWrap
from image2video.integrations import small_segmentors, timm_cifar

PREFIX = "i2v_"
_NOT_OF_THE_ARCHITECTURE = ("pretrained_cfg", "pretrained_cfg_overlay", "pretrained_model_args", "cache_dir")
_WRAP_OPTIONS = {
    name
    for name, parameter in inspect.signature(VideoWrap).parameters.items()
    if name == "fusion" or parameter.kind is inspect.Parameter.KEYWORD_ONLY
}

default_cfgs: dict[str, DefaultCfg] = {}
"""What timm's `register_model` reads: the bare model's tags and pretrained configs under the wrapped name."""


def create(architecture: str, *, pretrained: bool = False, **kwargs: Any) -> VideoWrap:
    """Build a timm model and wrap it; the registered names call this.

    Args:
        architecture: the bare model's name, without a tag.
        pretrained: take timm's trained weights.
        **kwargs: arguments of `VideoWrap`, and those of `timm.create_model`.

    Returns:
        The wrapped model. Its builder is recorded where its arguments are JSON values, so that
        `VideoWrap.from_pretrained` needs no backbone.
    """
    options = {name: kwargs.pop(name) for name in list(kwargs) if name in _WRAP_OPTIONS}
    config = kwargs.get("pretrained_cfg")
    if isinstance(config, dict):
        kwargs["pretrained_cfg"] = {**config, "architecture": architecture}
    elif isinstance(config, PretrainedCfg):
        kwargs["pretrained_cfg"] = replace(config, architecture=architecture)
    backbone = timm.create_model(architecture, pretrained=pretrained, **kwargs)
    model = VideoWrap(backbone, **options)
    # timm's scripts load checkpoints into a model that they built by its name alone.
    model.follow_clip(_WRAP_OPTIONS - options.keys())
    model.builder = _builder(architecture, kwargs)
    return model


def register_all() -> list[str]:
    """Register `i2v_` + every architecture that timm knows now.

    It runs once when this module is imported; call it again after registering models of your own.

    Returns:
        The names that were not registered before.
    """
    added = []
    for architecture in timm.list_models():
        name = PREFIX + architecture
        if architecture.startswith(PREFIX) or timm.is_model(name):
            continue
        cfgs = get_arch_pretrained_cfgs(architecture)
        if cfgs:
            tags = {key.partition(".")[2]: cfg for key, cfg in cfgs.items()}
            default_cfgs[name] = DefaultCfg(is_pretrained=any(cfg.has_weights for cfg in tags.values()), cfgs=tags)
            default_cfgs[name].tags.extend(tags)
        globals()[name] = register_model(_entry_point(name, architecture))
        added.append(name)
    return added


def _entry_point(name: str, architecture: str) -> Callable[..., VideoWrap]:
    def entry(pretrained: bool = False, **kwargs: Any) -> VideoWrap:
        return create(architecture, pretrained=pretrained, **kwargs)

    entry.__name__ = entry.__qualname__ = name
    entry.__doc__ = f"`{architecture}` in a `VideoWrap`; the arguments of both."
    return entry


def _builder(architecture: str, kwargs: dict[str, Any]) -> Builder | None:
    """The recipe of the bare model; None where an argument is no JSON value (a class, a tensor)."""
    config = kwargs.get("pretrained_cfg")
    tag = config if isinstance(config, str) else getattr(config, "tag", None)
    if isinstance(config, dict):
        tag = config.get("tag")
    # Weights come from the saved file, so where the pretrained ones came from is no part of the recipe.
    rest = {key: value for key, value in kwargs.items() if key not in _NOT_OF_THE_ARCHITECTURE and value is not None}
    try:
        return Builder(f"timm:{architecture}.{tag}" if tag else f"timm:{architecture}", rest)
    except InputTypeError:
        return None


# Registered before the loop below, so that they too are wrapped.
assert timm_cifar.default_cfgs
assert small_segmentors.default_cfgs
register_all()
