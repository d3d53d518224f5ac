"""Methods of a backbone that are called through its wrapper (`encode_image`, `predict`) see a clip of every image.

Without this they would run the bare network. A method that gets no images (`encode_text`) runs as it is.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from image2video.clip.checks import check_images
from image2video.errors import InputError, InputTypeError, UnsupportedError
from image2video.inject.door import Enter
from image2video.inject.recent import told_all
from image2video.wrap.aggregate import Aggregation, OutputFormats
from image2video.wrap.inside import check_channels


class Method(NamedTuple):
    """A call of a method.

    Args:
        name: of the method.
        arguments: those beside the images, in words; and where the images are, unless they come first.
    """

    name: str
    arguments: str

    @property
    def key(self) -> str:
        """The same for calls that return the same tensors."""
        return f"{self.name}({self.arguments})"


_IMAGE_CHANNELS = (1, 3)

See = Callable[[Method, Tensor, Enter], Any]


def is_method_of(backbone: nn.Module, value: Any) -> bool:
    """Whether a value is a method that is bound to the backbone itself."""
    return inspect.ismethod(value) and value.__self__ is backbone


def seeing(method: Any, channels: int, see: See) -> Callable[..., Any]:
    """Return a method that gives its images to `see`, and runs as it is where it gets none.

    Args:
        method: bound to a backbone.
        channels: of an image; 0 where that is not known.
        see: is given the call, the images, and what calls the method with others in their place.

    Returns:
        The method, with its own name, documentation and signature. It raises `UnsupportedError` for images that are
        held by something, for several of them, and for other tensors beside them; for images that `forward` refuses,
        what that raises.
    """

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        places: dict[int | str, Any] = dict(enumerate(args))
        places.update(kwargs)
        found = [place for place, value in places.items() if any(is_images(t, channels) for t in _tensors(value))]
        name = method.__name__
        if not found:
            for tensor in (t for value in places.values() for t in _tensors(value) if is_like_images(t, channels)):
                _refuse(tensor, channels, f"{name}() of {type(method.__self__).__name__}", name)
            return method(*args, **kwargs)
        place = found[0]
        images = places.pop(place)
        others = [str(key) for key, value in places.items() if next(_tensors(value), None) is not None]
        if not isinstance(images, Tensor) or others:
            came = (
                f"another tensor beside the images, {others[0]}" if others else f"images in a {type(images).__name__}"
            )
            raise UnsupportedError(
                f"{name}() of {type(method.__self__).__name__} got {came}; through the wrapper it takes one tensor of "
                "images (B, C, H, W), each of which is seen as a clip; pass that alone, or call "
                f"model.backbone.{name}(…) for the bare network"
            )

        def enter(backbone: nn.Module, frames: Tensor) -> Any:
            own = getattr(backbone, name)
            if isinstance(place, int):
                return own(*args[:place], frames, *args[place + 1 :], **kwargs)
            return own(*args, **{**kwargs, place: frames})

        where = "" if place == 0 else f"images={place}{', ' if places else ''}"
        return see(Method(name, f"{where}{told_all(places.items())}"), images, enter)

    return call


def is_images(value: Tensor, channels: int) -> bool:
    """Whether a tensor has the form of images: `(B, C, H, W)`, floating point."""
    return value.ndim == 4 and value.is_floating_point() and channels in (0, value.shape[1])


def is_like_images(value: Tensor, channels: int) -> bool:
    """Whether a tensor looks like images that `forward` refuses: integers, other channels, or channels at the end.

    Maps of features have 4 dimensions too, and other numbers of channels than images have.
    """
    if value.ndim != 4 or is_images(value, channels) or channels == 0:
        return False
    if value.shape[1] == channels or value.shape[1] in _IMAGE_CHANNELS:
        return value.is_floating_point() or value.shape[1] == channels or value.dtype == torch.uint8
    return value.shape[-1] == channels


def _refuse(images: Tensor, channels: int, what: str, name: str) -> None:
    """Raise what `forward` raises for images, with the name of the method."""
    try:
        check_images(images)
        check_channels(images, channels)
    except (InputTypeError, InputError) as error:
        raise type(error)(f"{what}: {error}; or call model.backbone.{name}(…) for the bare network") from None


def prefix_tokens(backbone: nn.Module) -> int:
    """Return how many tokens without a place in the image stand before the others, as timm's networks say; else 0."""
    count = getattr(backbone, "num_prefix_tokens", 0)
    return count if isinstance(count, int) else 0


def first_channels(backbone: nn.Module) -> int:
    """Return the channels that the first convolution of a backbone takes, for one that no plan has traced; else 0."""
    return next((weight.shape[1] for weight in backbone.parameters() if weight.ndim == 4), 0)


def aggregation_of(how: Aggregation, name: str) -> Aggregation:
    """Return how the outputs of a method are aggregated.

    Raises:
        UnsupportedError: for `"mean_prob"`, since a method may return features.
    """
    if how == "mean_prob":
        raise UnsupportedError(
            f'aggregate="mean_prob" averages probabilities, and {name}() may return features; call model(images), or '
            f'wrap with aggregate="auto" to use {name}()'
        )
    return how


def method_formats(known: OutputFormats, later: Callable[[], OutputFormats], prefix: int) -> OutputFormats:
    """Return what is known of the outputs of a method, which has other paths than those of the backbone's call.

    Args:
        known: of the outputs of the call.
        later: traces the method.
        prefix: tokens without a place in the image, which a method may return beside the others.
    """
    return dataclasses.replace(known, layouts={}, grids={}, before=frozenset(), later=later, prefix_tokens=prefix)


def _tensors(value: Any) -> Iterator[Tensor]:
    """Go through the tensors that a value is or holds."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
