"""The classifier of trained weights: kept where it fits the data, else left out, with a line that says so."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from image2video.cli.options import BackboneOptions
from image2video.data import DataSource
from image2video.errors import InputError
from image2video.training import load_weights, read_weights
from image2video.training.head import head_classes, head_names


def load_weights_file(
    model: nn.Module, backbone: BackboneOptions, data: DataSource, *, needed: bool = False
) -> str | None:
    """Load `--weights` into the network of these data; returns a line where their classifier is left out.

    needed: whether the network is used as it is, so that a fresh classifier would make every answer a guess. Raises
    `InputError` then, and where `--head keep` asks for a classifier that does not fit.
    """
    assert backbone.weights is not None, "callers have weights"
    count = head_classes(head_names(model), read_weights(backbone.weights))
    if count is None:  # of a network that names no classifier: all must fit
        count = data.num_classes
    head, note = choose_head(backbone, backbone.weights, count, data, needed=needed)
    load_weights(model, backbone.weights, head=head)
    return note


def choose_head(
    backbone: BackboneOptions, name: str, count: int, data: DataSource, *, needed: bool = False
) -> tuple[Literal["keep", "drop"], str | None]:
    """What becomes of a classifier of `count` classes in the weights called `name`, and a line where it is left out."""
    fits = count == data.num_classes
    if needed and not (fits and backbone.head != "drop"):
        numbered = all(label.isdecimal() for label in data.classes)
        way = (
            f"--classes {count} if the labels are numbers of outputs"
            if numbered
            else (f"--classes FILE with the names of the {count} outputs in their order")
        )
        raise InputError(
            f"{name} tells {count} classes apart, {data.short_name} has {data.num_classes}, and a fresh classifier "
            f"would guess; give {way}, or train the classifier first"
        )
    if backbone.head == "keep" and not fits:
        raise InputError(
            f"--head keep: {name} tells {count} classes apart, {data.short_name} has {data.num_classes}; give data "
            "with the same classes, or --head drop"
        )
    if fits and backbone.head != "drop":
        return "keep", None
    reason = "as asked" if fits else f"it tells {count} classes apart, {data.short_name} has {data.num_classes}"
    return "drop", f"the classifier of {name} is left out and starts fresh: {reason}"


def published_head(
    model: nn.Module, backbone: BackboneOptions, data: DataSource, *, needed: bool = False
) -> str | None:
    """The same for timm's own weights, which `model` was built with; returns a line where the classifier is fresh.

    timm itself leaves a classifier out that does not fit.
    """
    config: Any = getattr(model, "pretrained_cfg", None) or {}
    count = config.get("num_classes")
    if not count:
        return None
    head, note = choose_head(backbone, f"the published weights of {backbone.model}", count, data, needed=needed)
    if head == "drop" and count == data.num_classes:
        reset = getattr(model, "reset_classifier", None)
        if not callable(reset):
            raise InputError(f"--head drop: {type(model).__name__} has no reset_classifier(); leave it out")
        reset(data.num_classes)
    return note


def wrapped_head(model: nn.Module, backbone: BackboneOptions, data: DataSource, *, needed: bool = False) -> str | None:
    """The same for a model of `save_pretrained`, changed in place; nothing where it does not say its classes."""
    count = getattr(model, "num_classes", None)
    if not isinstance(count, int):
        return None
    head, note = choose_head(backbone, str(backbone.weights), count, data, needed=needed)
    if head == "drop":
        model.reset_classifier(data.num_classes)  # type: ignore[operator]
    return note
