"""Bare backbones from timm, by name: the builder `timm` of the entry-point group `image2video.builders`."""

from __future__ import annotations

import difflib
from typing import Any

import timm
from torch import nn

from image2video.functional import InputError
from image2video.integrations import small_segmentors, timm_cifar

NAMES = tuple(timm_cifar.default_cfgs)
"""The small-image ResNets that this package adds to timm."""

SEGMENTORS = tuple(small_segmentors.default_cfgs)
"""The networks for segmentation that this package adds to timm."""


def build(
    name: str,
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    pretrained: bool = False,
    **kwargs: Any,
) -> nn.Module:
    """Build a bare backbone by its timm name, with or without a tag (`resnet50`, `resnet50.a1_in1k`, `cifar_resnet18`).

    Args:
        name: the model's name.
        num_classes: outputs of the classifier; by default the model's own.
        in_chans: channels of the images; by default the model's own.
        pretrained: take timm's trained weights.
        **kwargs: further arguments of `timm.create_model`.

    Returns:
        The model.

    Raises:
        InputError: an unknown name; names the nearest known ones.

    >>> build("cifar_resnet8", num_classes=10).num_classes
    10
    """
    architecture = name.split(".", 1)[0]
    if ":" not in name and not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=4)
        raise InputError(
            f"timm {timm.__version__} has no model {name!r}"
            + (f"; similar names: {', '.join(near)}" if near else "; timm.list_models() lists all")
        )
    model: nn.Module = timm.create_model(
        name, pretrained=pretrained, num_classes=num_classes, in_chans=in_chans, **kwargs
    )
    return model
