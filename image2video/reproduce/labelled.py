"""Images together with their label maps, through policies that are made for images alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F  # noqa: N812 (its usual name)

from image2video.clip.colours import Colours
from image2video.clip.genotype import Genotype
from image2video.clip.sampling import warp_frames
from image2video.clip.transform import run_matrices, split_runs
from image2video.data.augment import Apply
from image2video.data.random_frame import RandomFrame
from image2video.errors import StateError

IGNORED = 255
"""The label of pixels that losses and metrics leave out."""
_MOVING = (F.affine, F.rotate)
_COLOURING = (
    *(F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_sharpness, F.autocontrast),
    *(F.equalize, F.erase, F.invert, F.posterize, F.solarize),
)


class LabelledImage(tv_tensors.Image):
    """An image `(C, H, W)` that carries its label maps `(F, H, W)` through torchvision's functions.

    torchvision's `AutoAugment` and its kin take no masks. They draw what to do, and call the functions of
    `torchvision.transforms.v2.functional`, which act by the type of the image: on this one, those that move pixels move
    the labels too, and those that change colours leave them. The draws and the image are those of the policy itself.
    """

    labels: Tensor

    @classmethod
    def of(cls, image: Tensor, labels: Tensor) -> LabelledImage:
        """The image with these labels; nothing is copied."""
        carrier = image.as_subclass(cls)
        carrier.labels = labels
        return carrier


def augment_labelled(apply: Apply, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """An image `(C, H, W)` uint8 and its label maps `(F, H, W)` uint8 after a policy on pixels.

    The image is `apply(image)`; the labels make the same motions, by nearest neighbour, and pixels that come in from
    outside are 255. Erased squares keep their labels. Draws as `apply` does, from torch's global CPU generator. Raises
    `StateError` for a policy with an op that would lose the labels.
    """
    out = apply(LabelledImage.of(image, labels))
    if not isinstance(getattr(out, "labels", None), Tensor):
        raise StateError(
            f"{apply!r:.80} has an op of which it is not known whether it moves labels; use another policy"
        )
    assert isinstance(out, LabelledImage)
    return out.as_subclass(Tensor), out.labels


def frame_labelled(apply: RandomFrame, colours: Colours, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """An image `(C, H, W)` uint8 and its label maps `(F, H, W)` uint8 as one random frame of a random chain.

    The image is bilinear, with the mean colour outside, rounded to 256 levels; the labels make the same motions, by
    nearest neighbour, and pixels that come in from outside are 255. Draws as `apply` does, from torch's global CPU
    generator.
    """
    chain, step = apply.draw(torch.default_generator)
    frame = apply.moved(colours.to_normalised(image.float() / 255)[None], [(chain, step)])[0]
    pixels = colours.to_unit(frame).clamp(0, 1).mul(255).round().to(torch.uint8)
    return pixels, _moved(labels, chain, step)


def _moved(labels: Tensor, chain: Genotype, step: float) -> Tensor:
    """The labels after the motions of a chain: run by run as its frames, so that what has left comes back ignored."""
    height, width = labels.shape[-2:]
    for run in split_runs(chain.chain) if step != 0 else []:
        if run[0].geometric:
            # Outside is 0 to the sampler.
            shifted = labels[None, None].float() - IGNORED
            moved = warp_frames(shifted, run_matrices(run, [step], height, width), interpolation="nearest")
            labels = (moved[0, 0] + IGNORED).to(torch.uint8)
    return labels


def _carried(function: Callable[..., Any], *, moves: bool) -> Callable[..., LabelledImage]:
    def kernel(image: LabelledImage, **options: Any) -> LabelledImage:
        labels = image.labels
        if moves:
            outside = {"interpolation": InterpolationMode.NEAREST, "fill": [IGNORED]}
            labels = function(labels, **{**options, **outside})
        return LabelledImage.of(function(image.as_subclass(Tensor), **options), labels)

    return kernel


for _function in _MOVING + _COLOURING:
    F.register_kernel(_function, LabelledImage)(_carried(_function, moves=_function in _MOVING))
