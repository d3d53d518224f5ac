"""Frames of feature maps: the clip of a map inside a network, which moves as its image would."""

from __future__ import annotations

from torch import Tensor

from image2video.clip.any_clip import Clip
from image2video.clip.checks import check_size
from image2video.clip.matrices import conjugated
from image2video.clip.options import ClipOptions
from image2video.clip.sampling import matrix_device, warp
from image2video.errors import InputError, InputTypeError
from image2video.trace.capture import constant


def map_clip(
    maps: Tensor, clip: Clip, steps: tuple[float, ...], image_size: tuple[int, int], options: ClipOptions
) -> Tensor:
    """Make the clip `(B, S, C, h, w)` of maps `(B, C, h, w)` at the given powers, one resampling each.

    Convention: as in `warp`. Frame s is moved by the matrix of an image of the size (H, W), conjugated by the ratios
    w/W and h/H, so that it moves in [-1, 1] coordinates as a frame of the image does. Padding, interpolation, precision
    and memory layout are as in `warp`; identity and mirrored frames are copies bit for bit.
    """
    _check_maps(maps)
    H, W = check_size(image_size, "image_size")
    h, w = maps.shape[-2:]
    matrices = constant(conjugated, clip.step_matrices(steps, H, W, matrix_device(maps)), h / H, w / W)
    mirrored = [clip.mirrored(step) for step in steps]
    return warp(maps, matrices, padding=options.padding, interpolation=options.interpolation, mirrored=mirrored)


def _check_maps(maps: Tensor) -> None:
    """Raise `InputError` for other shapes than (B, C, h, w), `InputTypeError` for maps that cannot be resampled."""
    if maps.ndim != 4:
        raise InputError(f"maps must have the shape (B, C, h, w), got {tuple(maps.shape)}")
    if not maps.is_floating_point():
        raise InputTypeError(f"maps must be floating point to be resampled, got {maps.dtype}")
