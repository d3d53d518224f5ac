"""From test-time augmentation: the transforms of ttach as a frame set.

ttach (last released in 2020) is not imported: what a transform is, its class says, and what it does, its parameters.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

from image2video.functional import FrameSet, Genotype, InputError, InputTypeError, UnsupportedError

_NEAREST = {
    "Scale": "shows the network the whole image at another size, where scale(s) enlarges what is within the same size",
    "Multiply": "multiplies normalised images, where brightness(f) multiplies their colours in 0 … 1",
}
"""Transforms that have no equal, and how their nearest op differs."""

_NONE = {
    "Resize": "the frames of a clip have the size of the image; give the model images of another size",
    "Add": "no op adds to colours; brightness(f) multiplies them",
    "FiveCrops": "the frames of a clip have the size of the image; scale(s) > translate_x(±(s − 1) / 2) > "
    "translate_y(±(s − 1) / 2) shows a corner, enlarged s times",
}
"""Transforms without a counterpart, and what to do instead."""


def frame_set_of(transforms: Any, *, square: bool = False, nearest: bool = False) -> FrameSet:
    """Return the frame set that shows a network what test-time augmentation with ttach would show it, one frame each.

    With the same images, `VideoWrap(net, fusion="none", genotype=frame_set_of(transforms))` gives what
    `ClassificationTTAWrapper(net, transforms)` and `SegmentationTTAWrapper(net, transforms)` give with
    `merge_mode="mean"`, in one call of the network for all frames.

    Args:
        transforms: a `ttach.Compose`, or a list of transforms. Frames come in the order of `Compose`.
        square: the images are square, so that `Rotate90` keeps their shape; otherwise it is taken for 0 and 180 alone.
        nearest: take the nearest op where none is the same: `scale(s)` for `Scale`, which zooms within the image,
            `brightness(f)` for `Multiply`, which is the same for images in 0 … 1 that stay there.

    Returns:
        The frame set.

    Raises:
        InputTypeError: something else than transforms with the parameters of ttach's.
        UnsupportedError: a transform that has no equal; the message names it and says what is near.
        InputError: no transform, magnitudes beyond what an op allows, or more than 256 frames.

    >>> class HorizontalFlip:  # as ttach has it
    ...     params = [False, True]
    >>> print(frame_set_of([HorizontalFlip()]))
    identity | flip_x
    """
    steps = getattr(transforms, "aug_transforms", transforms)
    if isinstance(steps, str) or not isinstance(steps, Iterable):
        raise InputTypeError(
            f"transforms must be a ttach.Compose or a list, got a {type(transforms).__name__}{_meant(transforms)}"
        )
    steps = list(steps)
    if not steps:
        raise InputError('expected one transform or more, got none; for the image alone write genotype="identity"')
    for step in steps:
        _check(step, nearest)
    chains = [[_CHAINS[type(step).__name__](p, square) for p in step.params] for step in steps]
    frames = [" > ".join(filter(None, parts)) or "identity" for parts in itertools.product(*chains)]
    return FrameSet(tuple(Genotype.parse(frame) for frame in frames))


def _meant(given: Any) -> str:
    """Say what to pass in place of a single transform, or of what wraps a model."""
    if hasattr(getattr(given, "transforms", None), "aug_transforms"):
        return "; pass its transforms: wrapper.transforms"
    return "; pass a list of it: [transform]" if hasattr(given, "params") else ""


def _check(step: Any, nearest: bool) -> None:
    """Raise for a transform that is not known or has no equal."""
    name = type(step).__name__
    if name in _NONE:
        raise UnsupportedError(f"ttach's {name} has no counterpart: {_NONE[name]}")
    if name in _NEAREST and not nearest:
        raise UnsupportedError(
            f"ttach's {name} has no equal: it {_NEAREST[name]}; pass nearest=True to take that, or leave it out"
        )
    if name not in _CHAINS or not isinstance(getattr(step, "params", None), list | tuple):
        raise InputTypeError(
            f"expected transforms of ttach ({', '.join(_CHAINS)}) with their params, got a {name}; write the frames as "
            'text instead: "identity | flip_x | rotate(10)"'
        )


def _quarter_turns(angle: int, square: bool) -> str:
    """Return the chain of a rotation by 0, 90, 180 or 270 degrees, counter-clockwise."""
    turn = angle % 360
    if turn not in (0, 90, 180, 270):
        raise InputError(f"ttach's Rotate90 turns by multiples of 90 degrees, got {angle!r}; write rotate({angle})")
    if turn in (90, 270) and not square:
        raise UnsupportedError(
            f"ttach's Rotate90 by {angle} changes the shape of an image that is not square, where rotate({angle}) "
            "keeps it and cuts off what leaves it; pass square=True if the images are square"
        )
    return {0: "", 90: "rotate(90)", 180: "flip_x > flip_y", 270: "rotate(-90)"}[turn]


_CHAINS: dict[str, Callable[[Any, bool], str]] = {
    "HorizontalFlip": lambda apply, square: "flip_x" if apply else "",
    "VerticalFlip": lambda apply, square: "flip_y" if apply else "",
    "Rotate90": _quarter_turns,
    "Scale": lambda factor, square: f"scale({float(factor)!r})" if factor != 1 else "",
    "Multiply": lambda factor, square: f"brightness({float(factor)!r})" if factor != 1 else "",
}
"""By the class of a transform: the chain of one of its parameters."""
