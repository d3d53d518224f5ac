"""Methods of a backbone that are called through its wrapper (`encode_image`, `predict`) see a clip of every image.

Without this they would run the bare network. A method that gets no images (`encode_text`) runs as it is.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from image2video.errors import UnsupportedError
from image2video.inject.door import Enter
from image2video.inject.recent import told_all
from image2video.wrap.aggregate import Aggregation, OutputFormats


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
        held by something, for several of them, and for other tensors beside them.
    """

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        places: dict[int | str, Any] = dict(enumerate(args))
        places.update(kwargs)
        found = [place for place, value in places.items() if any(is_images(t, channels) for t in _tensors(value))]
        if not found:
            return method(*args, **kwargs)
        name, place = method.__name__, found[0]
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


def method_formats(known: OutputFormats, later: Callable[[], OutputFormats]) -> OutputFormats:
    """Return what is known of the outputs of a method, which has other paths than those of the backbone's call."""
    return dataclasses.replace(known, layouts={}, grids={}, before=frozenset(), later=later)


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
