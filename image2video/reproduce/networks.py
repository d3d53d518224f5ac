"""The networks of the tables: timm's, those of this package, and their variants with other receptive fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from image2video.data import DataSource
from image2video.errors import InputError
from image2video.integrations import timm_models
from image2video.integrations.timm_backbones import build
from image2video.reproduce import bn_inception, wide_resnet  # noqa: F401 (timm knows their networks then)
from image2video.reproduce.pretrained import begin_trained
from image2video.reproduce.receptive_variants import dilated, kernel5
from image2video.reproduce.spec import Setting

timm_models.register_all()  # the networks that were added, wrapped

VARIANTS: dict[str, Callable[[nn.Module], nn.Module]] = {"dilated": dilated, "kernel5": kernel5}
"""Name -> what changes a network's receptive field (Casarin et al., Table 4)."""


def build_network(setting: Setting, data: DataSource, *, variant: str | None = None) -> nn.Module:
    """The bare network of a setting for its data, with random weights.

    Raises:
        InputError: an unknown variant.
    """
    model = build(setting.model, num_classes=data.num_classes, in_chans=data.input_size[0])
    if variant is None:
        return model
    if variant not in VARIANTS:
        raise InputError(f"unknown variant {variant!r} of {setting.model}; known are {', '.join(VARIANTS) or 'none'}")
    return VARIANTS[variant](model)


def beginning_network(
    setting: Setting, data: DataSource, places: Mapping[str, str], *, variant: str | None = None
) -> nn.Module:
    """The bare network with which the arms of a setting begin: trained weights where it has them, else random ones.

    Raises:
        InputError: an unknown variant, or a variant of trained weights.
        MissingError: trained weights that are not there; `places` says where they are.
    """
    model = build_network(setting, data, variant=variant)
    if setting.weights is not None:
        if variant is not None:
            raise InputError(f"variant {variant!r} has no trained weights; leave out weights={setting.weights!r}")
        begin_trained(model, build(setting.model), setting.weights, places, keep_head=not setting.trains)
    return model
