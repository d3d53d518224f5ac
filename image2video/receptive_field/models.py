"""What the measurements ask of a model: the network without its shells, and the dtype and device of its images."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn

from image2video.errors import InputError
from image2video.wrap.video_wrap import VideoWrap

Model = TypeVar("Model", bound=nn.Module)


def uncompiled(model: Model) -> Model:
    """The model inside what `torch.compile` returns; other models as they are."""
    inner: Model = getattr(model, "_orig_mod", model)
    return inner


def bare_network(model: nn.Module) -> nn.Module:
    """The backbone of a `VideoWrap`; other models as they are."""
    return model.backbone if isinstance(model, VideoWrap) else model


def as_images_of(model: nn.Module, images: Tensor) -> Tensor:
    """The images in the dtype and on the device of a model's first floating-point parameter."""
    like = next((parameter for parameter in model.parameters() if parameter.is_floating_point()), images)
    return images.to(device=like.device, dtype=like.dtype)


def check_batch_size(batch_size: object, least: int) -> None:
    """Refuse, as `InputError`, what is no integer of at least `least`."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < least:
        raise InputError(f"batch_size must be an integer of at least {least}, got {batch_size!r}")
