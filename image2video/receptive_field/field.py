"""The receptive fields of a map's units as rectangles, and chains of layers that have them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import shapely
import torch
from torch import Tensor

from image2video.clip.checks import check_size
from image2video.errors import InputError, InputTypeError
from image2video.receptive_field.reach import Span

Pair = tuple[int, int]
Box = tuple[float, float, float, float]
"""(top, left, bottom, right), edges in pixels of the image: pixel i covers i … i + 1."""


@dataclass(frozen=True)
class Layer:
    """A convolution or pooling: each size an integer, or (height, width).

    Attributes:
        kernel: at least 1.
        stride: at least 1.
        dilation: at least 1.
        padding: zeros on both sides, at least 0.

    Raises:
        InputError: a size that is too small.
        InputTypeError: a size that is no integer.
    """

    kernel: int | Pair
    stride: int | Pair = 1
    dilation: int | Pair = 1
    padding: int | Pair = 0

    def __post_init__(self) -> None:
        for name, least in (("kernel", 1), ("stride", 1), ("dilation", 1), ("padding", 0)):
            value = getattr(self, name)
            pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
            if len(pair) != 2 or any(isinstance(n, bool) or not isinstance(n, int) for n in pair):
                raise InputTypeError(f"{name} must be an integer or (height, width), got {value!r}")
            if min(pair) < least:
                raise InputError(f"{name} must be at least {least}, got {value!r}")
            object.__setattr__(self, name, pair)

    def along(self, axis: int) -> tuple[int, int, int, int]:
        """The sizes along one axis.

        Args:
            axis: 0 for rows, 1 for columns.

        Returns:
            (kernel, stride, dilation, padding).
        """
        return tuple(pair[axis] for pair in (self.kernel, self.stride, self.dilation, self.padding))  # type: ignore[index, return-value]


@dataclass(frozen=True)
class Field:
    """The receptive field of every unit of a map, in pixels of the image.

    Convention: pixel i covers i … i + 1, so that its centre is i + 0.5; rows first. The field of unit (i, j) is a
    rectangle of `size` around `offset + (i, j) · stride`, which may reach beyond the image.

    Attributes:
        size: (height, width) of a field.
        stride: (rows, columns) between the fields of neighbouring units; below 1 where the map is larger than the
            image, 0 where every unit sees everything.
        offset: (y, x), the centre of the field of unit (0, 0).
        whole: whether a layer lets every unit see the whole image.
        reason: the name of that layer.
        layers: of a chain, its layers, which make `pixels` exact; None for a field that was read off a module.
        input_size: (height, width) of the images, where they are known.
    """

    size: tuple[float, float]
    stride: tuple[float, float]
    offset: tuple[float, float]
    whole: bool = False
    reason: str = ""
    layers: tuple[Layer, ...] | None = field(default=None, repr=False)
    input_size: Pair | None = None

    def centre(self, unit: Pair) -> tuple[float, float]:
        """The centre of a unit's field.

        Args:
            unit: (row, column) in the map.

        Returns:
            (y, x) in pixels.
        """
        return self.offset[0] + unit[0] * self.stride[0], self.offset[1] + unit[1] * self.stride[1]

    def box(self, unit: Pair, image_size: Pair | None = None) -> Box:
        """The edges of a unit's field.

        Args:
            unit: (row, column) in the map.
            image_size: (height, width) of an image to which the field is cut.

        Returns:
            (top, left, bottom, right) in pixels.
        """
        (y, x), (h, w) = self.centre(unit), self.size
        box = (y - h / 2, x - w / 2, y + h / 2, x + w / 2)
        if image_size is None:
            return box
        rows, columns = check_size(image_size, "image_size")
        return max(box[0], 0), max(box[1], 0), min(box[2], rows), min(box[3], columns)

    def polygon(self, unit: Pair, image_size: Pair | None = None) -> shapely.Polygon:
        """The field of a unit as a polygon, x to the right and y down.

        Args:
            unit: (row, column) in the map.
            image_size: (height, width) of an image to which the field is cut.

        Returns:
            A rectangle, which is empty where nothing of the field lies in the image.
        """
        top, left, bottom, right = self.box(unit, image_size)
        return shapely.box(left, top, right, bottom) if top < bottom and left < right else shapely.Polygon()

    def pixels(self, unit: Pair, image_size: Pair) -> Tensor:
        """Which pixels of an image a unit can see.

        Of a chain exactly, holes of dilation and losses at borders included; of a module the pixels of its box.

        Args:
            unit: (row, column) in the map.
            image_size: (height, width) of the image.

        Returns:
            `(H, W)` bool.

        Raises:
            InputError: a unit outside the map of a chain, or an image that is too small for its layers.
        """
        rows, columns = check_size(image_size, "image_size")
        mask = torch.zeros(rows, columns, dtype=torch.bool)
        if self.layers is not None:
            seen = [_seen(self.layers, axis, unit[axis], (rows, columns)[axis]) for axis in (0, 1)]
            mask[torch.tensor(seen[0], dtype=torch.long)[:, None], torch.tensor(seen[1], dtype=torch.long)] = True
            return mask
        top, left, bottom, right = (round(edge) for edge in self.box(unit, image_size))
        mask[top : max(bottom, top), left : max(right, left)] = True
        return mask

    def __str__(self) -> str:
        if self.whole:
            return f"the whole image{f' ({self.reason})' if self.reason else ''}"
        (h, w), (sy, sx), (y, x) = self.size, self.stride, self.offset
        return f"{h:g}×{w:g} pixels, every {sy:g}×{sx:g}, the first centred at ({y:g}, {x:g})"


def field_over(rows: Span, columns: Span, **more: Any) -> Field:
    """The field whose units reach these spans; `more` is given to `Field`."""
    spans = (rows, columns)
    h, w = (_plain(span.high - span.low) for span in spans)
    sy, sx = (_plain(span.stride) for span in spans)
    y, x = (_plain((span.high + span.low) / 2) for span in spans)
    return Field((h, w), (sy, sx), (y, x), **more)


def _plain(value: float) -> float:
    """An int where the value is whole."""
    return int(value) if float(value).is_integer() else float(value)


def chain_field(layers: tuple[Layer, ...], input_size: Pair | None = None) -> Field:
    """The field after the last layer of a chain."""
    spans = []
    for axis in (0, 1):
        span = Span(0, 1, 1, 1)  # the number of units, which the size of the image decides, plays no part here
        for item in layers:
            span = span.layer(*item.along(axis), count=1)
        spans.append(span)
    return field_over(*spans, layers=layers, input_size=input_size)


def map_sizes(layers: tuple[Layer, ...], axis: int, size: int) -> list[int]:
    """The numbers of units along an axis, before the first layer and after each; `InputError` where none is left."""
    sizes = [size]
    for index, item in enumerate(layers):
        k, s, d, p = item.along(axis)
        room = sizes[-1] + 2 * p - d * (k - 1) - 1
        if room < 0:
            raise InputError(
                f"layer {index} reaches over {d * (k - 1) + 1} units, its input has {sizes[-1]} and a padding of {p} "
                f"on both sides; an image of {size} pixels along axis {axis} is too small for these layers"
            )
        sizes.append(room // s + 1)
    return sizes


def _seen(layers: tuple[Layer, ...], axis: int, unit: int, size: int) -> list[int]:
    """The pixels along an axis that reach a unit, found on the way back through the layers."""
    sizes = map_sizes(layers, axis, size)
    if not 0 <= unit < sizes[-1]:
        raise InputError(
            f"unit {unit} along axis {axis} is outside the map, which has {sizes[-1]} units there; the first is 0"
        )
    positions = {unit}
    for item, count in zip(reversed(layers), reversed(sizes[:-1]), strict=True):
        k, s, d, p = item.along(axis)
        reached = {place * s - p + d * tap for place in positions for tap in range(k)}
        positions = {place for place in reached if 0 <= place < count}  # the others lie on padding
    return sorted(positions)
