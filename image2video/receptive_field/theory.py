"""The theoretical receptive field: how much of the image a unit can see by the sizes of the layers alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import shapely
import torch
from torch import Tensor, nn

from image2video.clip.checks import check_size
from image2video.errors import InputError, InputTypeError

Pair = tuple[int, int]
Box = tuple[float, float, float, float]
"""(top, left, bottom, right), edges in pixels of the image: pixel i covers i … i + 1."""


@dataclass(frozen=True)
class Layer:
    """A convolution or pooling: each size an integer, or (height, width).

    `kernel`, `stride` and `dilation` are at least 1, `padding` (zeros on both sides) at least 0. Raises `InputError`
    for others, `InputTypeError` for what is no integer.
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
                raise InputTypeError(f"{name} is an integer or (height, width), got {value!r}")
            if min(pair) < least:
                raise InputError(f"{name} must be at least {least}, got {value!r}")
            object.__setattr__(self, name, pair)

    def along(self, axis: int) -> tuple[int, int, int, int]:
        """(kernel, stride, dilation, padding) along axis 0 (rows) or 1 (columns)."""
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
        whole: whether a layer lets every unit see the whole image; `reason` names it.
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
        """(y, x) of the centre of a unit's field."""
        return self.offset[0] + unit[0] * self.stride[0], self.offset[1] + unit[1] * self.stride[1]

    def box(self, unit: Pair, image_size: Pair | None = None) -> Box:
        """(top, left, bottom, right) of a unit's field, within the image where its (height, width) is given."""
        (y, x), (h, w) = self.centre(unit), self.size
        box = (y - h / 2, x - w / 2, y + h / 2, x + w / 2)
        if image_size is None:
            return box
        rows, columns = check_size(image_size, "image_size")
        return max(box[0], 0), max(box[1], 0), min(box[2], rows), min(box[3], columns)

    def polygon(self, unit: Pair, image_size: Pair | None = None) -> shapely.Polygon:
        """The field of a unit as a shapely polygon, x to the right and y down, within the image where it is given."""
        top, left, bottom, right = self.box(unit, image_size)
        return shapely.box(left, top, right, bottom) if top < bottom and left < right else shapely.Polygon()

    def pixels(self, unit: Pair, image_size: Pair) -> Tensor:
        """Which pixels of an image of (height, width) a unit can see: `(H, W)` bool.

        Of a chain exactly, holes of dilation and losses at borders included; of a module the pixels of its box. Raises
        `InputError` for a unit outside the map of a chain, or an image that is too small for its layers.
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


def theoretical(
    layers: Sequence[Layer | Sequence[int]] | nn.Module,
    *,
    layer: str | None = None,
    input_size: Sequence[int] | None = None,
) -> Field:
    """The receptive field by Casarin et al., CVPR 2024, Eq. 8: r = 1 + Σ_l d_l (k_l − 1) Π_{j<l} s_j.

    Stride Π s_l; the offset follows from the paddings (Araujo, Norris, Sim, Distill 2019). Dilation and rectangular
    kernels are ours; the equation has neither.

    Args:
        layers: a chain of `Layer` (or tuples of its arguments), the first layer first; or a module, whose forward is
            traced: the longest path counts, and where paths lie beside each other, the rectangle that holds them all.
            The trace runs nothing and changes nothing. A `VideoWrap` has the field that its backbone has in one frame,
            without its fusions; `reshaped` says what the frames make of it.
        layer: of a module, the name of the layer whose output has the field; the model's first output by default.
        input_size: (C, H, W) of a module's images, where its own config does not tell; (H, W) does for a chain, and
            is only noted there.

    Global pooling, attention and norms over positions give a field with `whole=True` and the module's name in
    `reason` (attention within windows too: an upper bound). Raises `InputError` for a layer that does not run or has no
    map, `InputTypeError` for what is no chain, `UnsupportedError` naming an operation whose reach is not known;
    `support` measures it.

    >>> theoretical([(7, 2, 1, 3), (3, 2, 1, 1), (3, 1, 1, 1)]).size
    (19, 19)
    """
    if isinstance(layers, nn.Module):
        from image2video.receptive_field.traced import traced_field

        return traced_field(layers, layer, input_size)
    if layer is not None:
        raise InputError(f"layer={layer!r} names a layer of a module; a chain has the field after its last layer")
    size = None if input_size is None else check_size(tuple(input_size)[-2:], "input_size")
    return chain_field(_chain(layers), size)


def chain_field(layers: tuple[Layer, ...], input_size: Pair | None = None) -> Field:
    """The field after the last layer of a chain."""
    size, stride, offset = [1, 1], [1, 1], [0.5, 0.5]
    for item in layers:
        for axis in (0, 1):
            k, s, d, p = item.along(axis)
            size[axis] += d * (k - 1) * stride[axis]
            offset[axis] += (d * (k - 1) / 2 - p) * stride[axis]
            stride[axis] *= s
    return Field(
        (size[0], size[1]), (stride[0], stride[1]), (offset[0], offset[1]), layers=layers, input_size=input_size
    )


def _chain(layers: Sequence[Layer | Sequence[int]]) -> tuple[Layer, ...]:
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        raise InputTypeError(f"a chain is a sequence of Layer, or a module; got {type(layers).__name__}")
    out = []
    for item in layers:
        if not isinstance(item, Layer) and (not isinstance(item, tuple | list) or not 1 <= len(item) <= 4):
            raise InputTypeError(f"a layer is Layer(kernel, stride, dilation, padding), got {item!r:.80}")
        out.append(item if isinstance(item, Layer) else Layer(*item))
    return tuple(out)


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
    """The pixels along an axis that reach a unit, by the way back through the layers."""
    sizes = map_sizes(layers, axis, size)
    if not 0 <= unit < sizes[-1]:
        raise InputError(f"unit {unit} along axis {axis} is outside the map, which has {sizes[-1]} units there")
    positions = {unit}
    for item, count in zip(reversed(layers), reversed(sizes[:-1]), strict=True):
        k, s, d, p = item.along(axis)
        reached = {place * s - p + d * tap for place in positions for tap in range(k)}
        positions = {place for place in reached if 0 <= place < count}
    return sorted(positions)
