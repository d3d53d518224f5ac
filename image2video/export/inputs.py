"""What an export is given: the model, and images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from image2video.clip.frame_sources import FrameSource
from image2video.errors import InputError, InputTypeError, StateError, UnsupportedError
from image2video.wrap.video_wrap import VideoWrap

_RANDOM = 8
"""Images that are drawn where none are given."""


def check_module(model: nn.Module) -> None:
    """Raise `InputTypeError` for what is no module."""
    if not isinstance(model, nn.Module):
        raise InputTypeError(f"model must be a module, got a {type(model).__name__}")


def check_model(model: nn.Module) -> None:
    """Refuse a model that cannot be exported as it is.

    Raises:
        InputTypeError: no module.
        StateError: a part is in training mode.
        UnsupportedError: frames are drawn in evaluation too, or a part is on another device than the CPU.
    """
    check_module(model)
    training = [name or type(model).__name__ for name, module in model.named_modules() if module.training]
    if training:
        raise StateError(
            f"a model must be in evaluation to be exported, got {training[0]} in training mode; call model.eval()"
        )
    if isinstance(model, VideoWrap) and isinstance(model.to_video, FrameSource) and model.genotype is None:
        raise UnsupportedError(
            f"{type(model.to_video).__name__} draws its frames in evaluation too, which no file can hold; wrap the "
            "backbone with a genotype"
        )
    devices = {str(tensor.device) for tensor in (*model.parameters(), *model.buffers())}
    if devices - {"cpu"}:
        raise UnsupportedError(
            f"a model must be on the CPU to be exported, got {', '.join(sorted(devices))}; call model.cpu()"
        )


def example_images(model: nn.Module, images: Tensor | None) -> Tensor:
    """Return the images that are given, or random ones of the model's own size.

    Raises:
        InputError: an empty batch, another number of dimensions, or no known size.
        InputTypeError: no float32 tensor.
    """
    if images is None:
        size = model.plan.input_size if isinstance(model, VideoWrap) else (0, 0, 0)
        if not all(size):
            raise InputError("the size of the model's images is not known; give images=…, (N, C, H, W), normalised")
        return torch.randn(_RANDOM, *size, generator=torch.Generator().manual_seed(0))
    return check_images("images", images)


def check_images(name: str, images: Tensor) -> Tensor:
    """Return images `(N, C, H, W)` on the CPU.

    Raises:
        InputError: an empty batch, or another number of dimensions.
        InputTypeError: no float32 tensor.
    """
    if not isinstance(images, Tensor):
        raise InputTypeError(f"{name} must be a float32 tensor, got a {type(images).__name__}; convert it")
    if images.dtype != torch.float32:
        raise InputTypeError(f"{name} must be a float32 tensor, got {images.dtype}; convert it")
    if images.ndim != 4 or not len(images):
        raise InputError(f"{name} must be (N, C, H, W) with N of at least 1, got {tuple(images.shape)}")
    return images.cpu()


def rows(images: Tensor, count: int, start: int = 0) -> Tensor:
    """Return `count` images from `start` on; after the last one comes the first again."""
    return images[(torch.arange(count) + start) % len(images)]
