"""The effective receptive field: how much a unit depends on every pixel, by gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from image2video.clip.checks import check_images, check_size
from image2video.errors import InputError, InputTypeError
from image2video.protocols import Progress
from image2video.receptive_field.measures import Measures, jackknife, measures
from image2video.receptive_field.models import as_images_of, check_batch_size
from image2video.receptive_field.probe import Gradients, Probe, held_still
from image2video.receptive_field.target import Target, locate
from image2video.receptive_field.traced import trace_model
from image2video.receptive_field.units import Unit

GROUPS = 32
"""Up to so many images each is a group of its own for the standard errors; more are dealt out to this many groups."""


@dataclass(frozen=True)
class EffectiveField:
    """The mean absolute gradient of a unit with respect to the images, and what is read off it.

    Attributes:
        map: `(H, W)` float64 on the CPU, the mean over images and their channels.
        measures: of the map.
        errors: their standard errors over images (jackknife); None where fewer than two images have a gradient.
        unit: with its position filled in.
        described: the unit in words, for captions.
        size: (height, width) of the images.
        weights: what the weights are: "random", "trained", "trained on …".
        images: how many images.
        frame_shares: the share of the absolute gradient that enters through each frame; None without frames.
    """

    map: Tensor
    measures: Measures
    errors: Measures | None
    unit: Unit
    described: str
    size: tuple[int, int]
    weights: str
    images: int
    frame_shares: tuple[float, ...] | None = None

    def record(self) -> dict[str, Any]:
        """Everything but the map, flat and as JSON values.

        Returns:
            The values by name; standard errors end in `_error` and are None where they are not known.
        """
        numbers = self.measures.record()
        errors = dict.fromkeys(numbers) if self.errors is None else self.errors.record()
        record: dict[str, Any] = {"size": list(self.size), "weights": self.weights}
        record |= {"unit": self.described, "images": self.images}
        record |= numbers | {f"{name}_error": error for name, error in errors.items()}
        record["frame_shares"] = None if self.frame_shares is None else list(self.frame_shares)
        return record


def effective(
    model: nn.Module,
    images: Tensor,
    unit: Unit | None = None,
    *,
    size: Sequence[int] | None = None,
    weights: str = "as given",
    batch_size: int = 4,
    seed: int = 0,
    progress: Progress | None = None,
) -> EffectiveField:
    """The effective receptive field of one unit of any model: the mean |∂ unit / ∂ image|, through the warps if any.

    One backward per batch: images do not depend on one another in eval mode. The model runs in eval mode, in its own
    dtype and on its own device, no further than the unit needs, and is afterwards what it was. (Luo et al., NeurIPS
    2016; Casarin et al., CVPR 2024, Fig. 1b. With random weights, build a `VideoWrap` with residual=False and use
    `prepare_random`, or fusion has no effect that could be seen.)

    Args:
        model: takes images `(B, C, H, W)`; a `VideoWrap` too.
        images: `(N, C, H, W)` floating point, normalised as the model needs.
        unit: which unit; by default the largest value of the output (of a classifier, the predicted class).
        size: (height, width) that the images must have, where the caller wants that checked.
        weights: what the result says of the weights: "random", "trained", "trained on …".
        batch_size: images at a time; each is T frames for a `VideoWrap`.
        seed: of the random signs with which all channels are added up.
        progress: called after every batch.

    Returns:
        The field, with its measures and their standard errors.

    Raises:
        InputError: images of another size, a unit that the model does not have, gradients that are NaN, or zero
            everywhere.
        InputTypeError: images that are no floating-point tensor.
        UnsupportedError: no gradient reaches the images.
    """
    units = [Unit() if unit is None else unit]
    options: dict[str, Any] = {"weights": weights, "batch_size": batch_size, "seed": seed, "progress": progress}
    return effective_fields(model, images, units, size=size, **options)[0]


def effective_fields(
    model: nn.Module,
    images: Tensor,
    units: Sequence[Unit],
    *,
    size: Sequence[int] | None = None,
    weights: str = "as given",
    batch_size: int = 4,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[EffectiveField, ...]:
    """What `effective` gives for each of several units of one model, which share every forward.

    Everything else is as in `effective`; `InputError` also for no units.
    """
    _check_arguments(images, size, batch_size, weights)
    if not units:
        raise InputError("no unit was asked for; name at least one")
    count, channels = images.shape[:2]
    extent = (images.shape[2], images.shape[3])
    traced = trace_model(model, (channels, *extent))
    targets = [locate(model, channels, extent, unit, traced=traced) for unit in units]
    sums = [_Sums(count, target) for target in targets]
    probe = Probe(model, targets, seed)
    with held_still(model):
        for start in range(0, count, batch_size):
            batch = as_images_of(model, images[start : start + batch_size])
            for total, found in zip(sums, probe.gradients(batch), strict=True):
                total.add(start, found)
            if progress is not None:
                progress("receptive field", min(start + batch_size, count), count)
    return tuple(total.result(weights) for total in sums)


class _Sums:
    """What is added up over the images, on the CPU in float64."""

    def __init__(self, count: int, target: Target) -> None:
        self.count, self.target = count, target
        groups = min(count, GROUPS)
        self.maps = torch.zeros((groups, *target.size), dtype=torch.float64)
        self.sizes = torch.bincount(torch.arange(count) % groups, minlength=groups).double()
        self.frames = None if target.T is None else torch.zeros(target.T, dtype=torch.float64)

    def add(self, start: int, found: Gradients) -> None:
        """Count the gradients of the images from number `start` on."""
        maps = _wide(found.images).abs().mean(1)
        # Images are dealt out in turn, so that neighbours, which may be alike, fall into different groups.
        rows = torch.arange(start, start + len(maps)) % len(self.maps)
        self.maps.index_add_(0, rows, maps.cpu().double())
        if self.frames is not None and found.frames is not None:
            self.frames += _wide(found.frames).abs().sum((2, 3, 4)).cpu().double().sum(0)

    def result(self, weights: str) -> EffectiveField:
        """The field; raises `InputError` where every gradient is zero."""
        mean, target = self.maps.sum(0) / self.count, self.target
        if float(mean.sum()) == 0:
            raise InputError(
                f"the gradient of {target.described} is zero everywhere for all {self.count} images: dead units, a "
                "rounding, or branches that begin at zero (prepare_random gives those values); choose another unit"
            )
        shares = None if self.frames is None else tuple((self.frames / self.frames.sum()).tolist())
        errors = jackknife(self.maps, self.sizes)
        return EffectiveField(
            mean, measures(mean), errors, target.unit, target.described, target.size, weights, self.count, shares
        )


def _wide(gradient: Tensor) -> Tensor:
    """Float32, or float64 where it came so: what is added up in."""
    return gradient if gradient.dtype == torch.float64 else gradient.float()


def _check_arguments(images: object, size: Sequence[int] | None, batch_size: int, weights: object) -> None:
    """Refuse arguments that no measurement could take."""
    if isinstance(images, list | tuple):
        shapes = sorted({tuple(getattr(image, "shape", ())) for image in images})
        raise InputTypeError(
            f"images must be one tensor (N, C, H, W), got a {type(images).__name__} of shapes {shapes[:4]}; resize "
            "them to one size and stack them: torch.stack(images)"
        )
    check_images(images)
    assert isinstance(images, Tensor)
    if len(images) == 0:
        raise InputError("no images came; a mean gradient needs at least one")
    if size is not None and check_size(tuple(size), "size") != tuple(images.shape[-2:]):
        raise InputError(
            f"the images have {images.shape[-2]}×{images.shape[-1]} pixels, size says {size[0]}×{size[1]}; resize them"
        )
    check_batch_size(batch_size, 1)
    if not isinstance(weights, str) or not weights.strip():
        raise InputError(f"weights must say in words what they are ('random', 'trained on …'), got {weights!r:.80}")
