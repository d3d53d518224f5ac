"""The theoretical receptive field: how much of the image a unit can see by the sizes of the layers alone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from image2video.clip.checks import check_size
from image2video.errors import InputError, InputTypeError
from image2video.receptive_field.field import Field, Layer, chain_field
from image2video.receptive_field.traced import field_of, trace_model


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
            without its fusions; `reshaped` says what the frames make of it, and `clip_field` of any clip, which may
            begin inside of the network.
        layer: of a module, the name of the layer whose output has the field; the model's first output by default.
        input_size: (C, H, W) of a module's images, where its own config does not tell; (H, W) does for a chain, and
            is only noted there.

    Returns:
        The field. Global pooling, attention and norms over positions give one with `whole=True` and the module's name
        in `reason` (attention within windows too: an upper bound).

    Raises:
        InputError: a layer that does not run or has no map.
        InputTypeError: what is no chain.
        UnsupportedError: an operation whose reach is not known, by name; `support` measures it.

    >>> theoretical([(7, 2, 1, 3), (3, 2, 1, 1), (3, 1, 1, 1)]).size
    (19, 19)
    """
    if isinstance(layers, nn.Module):
        return field_of(trace_model(layers, input_size), layer)
    if layer is not None:
        raise InputError(f"layer={layer!r} names a layer of a module; a chain has the field after its last layer")
    size = None if input_size is None else check_size(tuple(input_size)[-2:], "input_size")
    return chain_field(_chain(layers), size)


def _chain(layers: Sequence[Layer | Sequence[int]]) -> tuple[Layer, ...]:
    """The layers of a chain, checked."""
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        raise InputTypeError(f"a chain must be a sequence of Layer, or a module; got {type(layers).__name__}")
    chain = []
    for item in layers:
        if isinstance(item, Layer):
            chain.append(item)
        elif isinstance(item, tuple | list) and 1 <= len(item) <= 4:
            chain.append(Layer(*item))
        else:
            raise InputTypeError(f"a layer must be Layer(kernel, stride, dilation, padding), got {item!r:.80}")
    return tuple(chain)
