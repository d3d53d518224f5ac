"""Where a unit is in a model: checked against a trace before anything is hooked or run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from image2video.clip.checks import check_size
from image2video.errors import InputError, UnsupportedError
from image2video.receptive_field.inside import places_of
from image2video.receptive_field.models import bare_network, uncompiled
from image2video.receptive_field.traced import Traced, trace_model
from image2video.receptive_field.units import Unit
from image2video.trace.graph import Graph
from image2video.trace.layout import Layout
from image2video.trace.layouts import placed
from image2video.trace.recorder import Value
from image2video.trace.sizes import nominal_size
from image2video.trace.trace import IMAGES
from image2video.wrap.video_wrap import VideoWrap


@dataclass(frozen=True)
class Target:
    """A unit that a model has.

    Attributes:
        unit: as asked for, with its position filled in where it has one.
        path: which tensor of what the module or the model returns.
        layout: of a map or tokens; None for a vector.
        channels: how many the tensor has.
        T: frames per image; None for a model without frames, and for a unit before the place where a clip begins.
        size: (height, width) of the images.
        described: the unit in words.
        runs: how often the layer runs in one forward; the unit is of the last time. 0 for what the model returns.
        value: the index of the tensor in the trace.
        passed: how many of the places inside of the network where maps are moved it is behind.
    """

    unit: Unit
    path: str
    layout: Layout | None
    channels: int
    T: int | None
    size: tuple[int, int]
    described: str
    runs: int = 0
    value: int = 0
    passed: int = 0


def locate(
    model: nn.Module, channels: int, size: tuple[int, int], unit: Unit, *, traced: Traced | None = None
) -> Target:
    """Find a unit in a model for images of (height, width); the model stays as it is.

    `traced` is the model's trace on such images, where the caller has one (`trace_model`).

    Raises `InputError` for a layer that does not run, a unit outside its map, a frame that the model does not have,
    several outputs of which none is named (they are listed), an output that does not depend on the images, and a
    tensor without places; `UnsupportedError` for a model that cannot be traced.
    """
    T = _frames(model, unit)
    traced = traced or trace_model(model, (channels, *size))
    path, value = _tensor(traced, unit)
    places = places_of(model, traced)
    passed = sum(place.sees_frames(value.index) for place in places)
    if places and passed == 0 and _begins_inside(model):
        if unit.frame is not None:
            raise InputError(
                f"{_what(unit, path)} lies before the place where the clip begins, {places[0].site.name!r}, and has no "
                "frames; leave frame out, or name a layer behind it"
            )
        T = None
    if not value.depends:
        raise InputError(
            f"{_what(unit, path)} of {type(traced.model).__name__} does not depend on the images, so it has no "
            "receptive field; name another layer or output"
        )
    layout, grid, count = _layout(traced, value, _what(unit, path))
    if isinstance(unit.channels, int) and unit.channels >= count:
        raise InputError(
            f"channel {unit.channels} is outside {_what(unit, path)}, which has {count} channels; the first is 0"
        )
    described = unit.phrase(vector=layout is None, aggregated=T is not None)
    runs = 0 if unit.layer is None else traced.runs(unit.layer)
    if grid is None:
        if unit.position != "centre":
            raise InputError(f"{_what(unit, path)} is a vector and has no position {unit.position}; leave it out")
        return Target(unit, path, None, count, T, size, described, runs, value.index, passed)
    y, x = (grid[0] // 2, grid[1] // 2) if isinstance(unit.position, str) else unit.position
    if y >= grid[0] or x >= grid[1]:
        raise InputError(
            f"unit ({y}, {x}) is outside the map of {_what(unit, path)}, which has {grid[0]}×{grid[1]} units for "
            f"images of {size[0]}×{size[1]} pixels; the first is (0, 0)"
        )
    found = replace(unit, position=(y, x))
    return Target(found, path, layout, count, T, size, described, runs, value.index, passed)


def image_shape(model: nn.Module, size: Sequence[int]) -> tuple[int, int, int]:
    """(C, H, W) of a model's images from (H, W) or (C, H, W); raises `InputError` where the channels are not known."""
    size = tuple(size)
    if len(size) == 3:
        return (size[0], *check_size(size[1:], "size"))
    height, width = check_size(size, "size")
    bare = bare_network(uncompiled(model))
    told = nominal_size(bare)
    first = next((module.in_channels for module in bare.modules() if isinstance(module, nn.Conv2d)), None)
    channels = told[0] if told else first
    if channels is None:
        raise InputError(f"the channels of the images of {type(bare).__name__} are not known; give size=(C, H, W)")
    return channels, height, width


def _frames(model: nn.Module, unit: Unit) -> int | None:
    """How many frames the model makes of an image; None for a model without frames."""
    model = uncompiled(model)
    if not isinstance(model, VideoWrap):
        if unit.frame is not None:
            raise InputError(
                f"the unit is of frame {unit.frame}, and {type(model).__name__} has no frames; leave frame out, or "
                "wrap it: VideoWrap(model)"
            )
        return None
    if unit.frame is not None and unit.frame >= model.T:
        raise InputError(f"frame {unit.frame} is outside the clip of T = {model.T} frames; give 0 … {model.T - 1}")
    if unit.frame is None and unit.layer is None and model.aggregate == "none":
        raise InputError('aggregate="none" leaves the frames apart; say which one is meant: Unit(frame=0)')
    return model.T


def _begins_inside(model: nn.Module) -> bool:
    """Whether the clip of a wrapper begins inside of its backbone."""
    model = uncompiled(model)
    return isinstance(model, VideoWrap) and model.plan.clip_site is not None


def _tensor(traced: Traced, unit: Unit) -> tuple[str, Value]:
    """The tensor that a unit names, with its path."""
    values = traced.trace.values
    if unit.layer is None:
        found = [(path, values[index]) for path, index in traced.trace.outputs]
    else:
        outputs = traced.layer(unit.layer).outputs
        single = len(outputs) == 1
        found = [("" if single else f"[{i}]", values[index]) for i, index in enumerate(outputs) if index >= 0]
    what = unit.layer or type(traced.model).__name__
    if not found:
        raise InputError(f"{what} returns no tensor that a receptive field could belong to; name a layer below it")
    if unit.output is None:
        if len(found) == 1:
            return found[0]
        raise InputError(f"{what} returns {len(found)} tensors; say which with output=…: {_listed(found)}")
    wanted = (f"[{unit.output!r}]", f".{unit.output}", str(unit.output))
    chosen = [item for item in found if item[0] and item[0] in wanted]
    if not chosen:
        raise InputError(f"output={unit.output!r} is none of what {what} returns: {_listed(found)}")
    return chosen[0]


def _listed(found: list[tuple[str, Value]]) -> str:
    """Up to twelve tensors by path and shape, for errors."""
    names = [f"{path or 'the tensor itself'} {(1, *value.shape[1:])}" for path, value in found[:12]]
    return ", ".join(names) + (f" and {len(found) - 12} more" if len(found) > 12 else "")


def _layout(traced: Traced, value: Value, what: str) -> tuple[Layout | None, tuple[int, int] | None, int]:
    """The layout, the grid and the channels of a tensor; neither of the first two for a vector."""
    shape = value.shape
    if len(shape) in (1, 2) and shape[0] == IMAGES:
        return None, None, shape[1] if len(shape) == 2 else 1
    graph = Graph(traced.trace)
    place = placed(graph, value.index)
    for side in (1, -1):
        # A single channel has no name in the trace; it is where the size is 1 and the places are not.
        if isinstance(place, str) and shape[side % len(shape)] == 1:
            place = placed(graph, value.index, hint=side)
    if isinstance(place, str):
        raise InputError(f"{what} has no units of one image: {place}; name another layer or output")
    layout = place.layout
    if place.parts != 1 or layout.spatial == "none":
        raise UnsupportedError(
            f"{what} has shape {shape} for {IMAGES} images: {layout.describe()} with {place.parts} rows per image, "
            "which is no map and no row-major grid of tokens; name the layer around it"
        )
    if layout.spatial == "tokens":
        assert layout.grid is not None, "the trace gives tokens their grid"
        return layout, layout.grid, place.channels
    return layout, (shape[2:] if layout.channel_dim == 1 else shape[1:3]), place.channels  # type: ignore[return-value]


def _what(unit: Unit, path: str) -> str:
    """The tensor that holds a unit, in words."""
    place = f"layer {unit.layer!r}" if unit.layer else "the output"
    return f"{place} {path}" if path else place
