"""The support: the pixels that a unit depends on at all, found by gradients."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from image2video.errors import InputError, UnsupportedError
from image2video.receptive_field.field import Box
from image2video.receptive_field.models import as_images_of, uncompiled
from image2video.receptive_field.probe import Gradients, Probe, held_still
from image2video.receptive_field.target import image_shape, locate
from image2video.receptive_field.units import Unit

LEAST_DRAWS = 8


@dataclass(frozen=True)
class Support:
    """The pixels whose gradient to one unit is not zero.

    Attributes:
        mask: `(H, W)` bool, in the reference image.
        frames: `(T, H, W)` bool, in every frame as the backbone sees it; where the clip begins inside of it, `(T, h,
            w)` of the map there. None for a unit without frames.
        unit: with its position filled in.
        described: the unit in words.
        size: (height, width) of the images.
        weights: what the weights are: "random", "trained", …, or "redrawn".
        draws: how many random images the union is over.
    """

    mask: Tensor
    frames: Tensor | None
    unit: Unit
    described: str
    size: tuple[int, int]
    weights: str
    draws: int

    @property
    def box(self) -> Box:
        """(top, left, bottom, right) around the mask, edges in pixels."""
        rows, columns = self.mask.any(1).nonzero(), self.mask.any(0).nonzero()
        return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1

    @property
    def area(self) -> int:
        """How many pixels of the reference image the unit depends on."""
        return int(self.mask.sum())


def support(
    model: nn.Module,
    size: Sequence[int],
    unit: Unit | None = None,
    *,
    draws: int = LEAST_DRAWS,
    seed: int = 0,
    redraw: bool = False,
    tolerance: float = 0.0,
    weights: str = "as given",
) -> Support:
    """The pixels that one unit of any module depends on: those with a gradient in one of several random draws.

    A float64 copy of the model in eval mode sees `draws` images of normal noise (at least 8: norms, softmax, gates and
    ReLUs can hide a pixel in one). The model itself is not touched. Of a `VideoWrap` the pixels are those of the
    reference image, through the warps, and those of every frame.

    Args:
        model: takes images `(B, C, H, W)`.
        size: (H, W) of the images, or (C, H, W) where the model does not tell its channels.
        unit: which unit; by default the largest value of the output (at the centre, where it is a map).
        draws: how many images.
        seed: of the noise.
        redraw: draw the weights anew each time as well: what the architecture can see, whatever its weights are.
        tolerance: gradients of at most this share of the largest count as zero. 0 is exact; warps by whole pixels read
            the neighbours with weights of about 1e-16, which 1e-12 leaves out.
        weights: what the result says of the weights ("random", "trained on …").

    Returns:
        The pixels, which lie in the theoretical field and hold the effective field.

    Raises:
        InputError: fewer than 8 draws, an unknown unit, or gradients that are NaN or zero everywhere.
        UnsupportedError: a model that cannot be copied, does not run in float64, or has no gradient.
    """
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < LEAST_DRAWS:
        raise InputError(f"draws must be at least {LEAST_DRAWS}, got {draws!r}; fewer can miss pixels")
    channels, height, width = image_shape(model, size)
    target = locate(model, channels, (height, width), unit or Unit())
    stated = "redrawn" if redraw else weights
    twin = _float64_copy(model)
    generator = torch.Generator().manual_seed(seed)
    probe = Probe(twin, [target], seed)
    mask, frames = torch.zeros(height, width, dtype=torch.bool), None
    with held_still(twin):
        for _ in range(draws):
            if redraw:
                _draw_weights(twin, generator)
            image = torch.randn((1, channels, height, width), generator=generator, dtype=torch.float64)
            found = _gradients(probe, as_images_of(twin, image))
            mask |= _seen(found.images, tolerance)[0].cpu()
            if found.frames is not None:
                seen = _seen(found.frames[0], tolerance).cpu()
                frames = seen if frames is None else frames | seen
    if not mask.any():
        raise InputError(
            f"the gradient of {target.described} is zero everywhere in {draws} draws: dead units, a rounding, or "
            "branches that begin at zero (prepare_random gives those values)"
        )
    return Support(mask, frames, target.unit, target.described, (height, width), stated, draws)


def _gradients(probe: Probe, image: Tensor) -> Gradients:
    """The gradients of one image; `UnsupportedError` for a model that does not run in float64."""
    try:
        return probe.gradients(image)[0]
    except RuntimeError as error:
        if "type" not in str(error):  # PyTorch's words for mixed dtypes: "dtype", "scalar type", …
            raise
        raise UnsupportedError(
            f"{type(probe.model).__name__} does not run in float64, which an exact support needs: {error!s:.200}"
        ) from error


def _seen(gradient: Tensor, tolerance: float) -> Tensor:
    """Where `(N, C, H, W)` is not zero in any channel: `(N, H, W)`."""
    size = gradient.abs().amax(1)
    return size > tolerance * size.max()


def _float64_copy(model: nn.Module) -> nn.Module:
    """A copy that can be measured exactly."""
    model = uncompiled(model)
    try:
        twin = copy.deepcopy(model)
    except Exception as error:
        raise UnsupportedError(f"{type(model).__name__} cannot be copied, and a support needs a copy") from error
    if any(tensor.device.type == "mps" for tensor in twin.parameters()):
        twin = twin.cpu()  # the device knows no float64
    return twin.double()


def _draw_weights(model: nn.Module, generator: torch.Generator) -> None:
    """Give every parameter a new value: kernels by their fan-in, gains about 1, biases about 0."""
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point():
            continue
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
        if parameter.ndim > 1:
            value = noise * math.sqrt(2 / max(1, parameter[0].numel()))
        else:
            value = 0.1 * noise + (0.0 if name.rsplit(".", 1)[-1].endswith("bias") else 1.0)
        parameter.data.copy_(value)
