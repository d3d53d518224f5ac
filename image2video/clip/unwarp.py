"""The way back from frames to their image: resampling of maps, and how much of each image its frames show."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from image2video.clip.any_clip import Clip
from image2video.clip.checks import check_size
from image2video.clip.kept import bytes_of, kept_grid
from image2video.clip.matrices import conjugated, normalise
from image2video.clip.ops.op import working_dtype
from image2video.clip.sampling import in_order, matrix_device, sample, sampling_grid, warp
from image2video.errors import InputError
from image2video.trace.capture import constant, is_captured


def unwarp_clip(
    clip: Tensor,
    genotype: Clip,
    steps: tuple[float, ...],
    image_size: tuple[int, int],
    *,
    interpolation: str,
    padding: str = "zeros",
    cells: tuple[int, int] | None = None,
) -> Tensor:
    """Bring maps `(B, S, K, h, w)` of the frames at the given powers back to the image; same shape.

    `cells` is the size of the map where the clip began, for magnitudes in cells; None stands for the image. Maps of
    frames that are the image or a mirror image come back bit for bit.
    """
    height, width = check_size(image_size, "image_size")
    mirrored = [genotype.mirrored(step) for step in steps]
    if all(axes == () for axes in mirrored):
        return clip
    sampled = [t for t, axes in enumerate(mirrored) if axes is None]
    if not sampled:
        return torch.stack(in_order(mirrored, clip.unbind(1), ()), dim=1)
    moving = clip if len(sampled) == len(steps) else torch.stack([clip[:, t] for t in sampled], dim=1)
    # The way back reads the frame at M · p, so the frame's own matrix is the backward map; in [-1, 1] coordinates it is
    # the same for maps of every size.
    powers = tuple([steps[t] for t in sampled])
    # Bicubic weights are negative in places: averages of maps would overshoot.
    mode = "nearest" if interpolation == "nearest" else "bilinear"
    h, w = moving.shape[-2:]
    dtype, device = working_dtype(moving), moving.device

    def make() -> Tensor:
        matrices = genotype.step_matrices(powers, height, width, matrix_device(clip), cells=cells)
        return constant(_way_back, matrices, height, width, h, w, dtype, device)

    if is_captured():
        grid = make()
    else:
        key = ("back", genotype, powers, (int(height), int(width)), cells, (int(h), int(w)), dtype)
        grid = kept_grid(device, make, bytes_of, *key)
    if torch.jit.is_tracing():
        # The images become channels: a trace for ONNX would repeat the grid for the traced number of images for good.
        pictures = moving.transpose(0, 1).flatten(1, 2)
        out = sample(pictures, grid, padding=padding, interpolation=mode)
        out = out.unflatten(1, (-1, clip.shape[2])).transpose(0, 1)
    else:
        points = grid.repeat(clip.shape[0], 1, 1, 1)
        out = sample(moving.flatten(0, 1), points, padding=padding, interpolation=mode)
        out = out.unflatten(0, (-1, len(sampled)))
    if len(sampled) == len(steps):
        return out
    return torch.stack(in_order(mirrored, clip.unbind(1), out.unbind(1)), dim=1)


def _way_back(
    matrices: Tensor, height: int, width: int, h: int, w: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return where maps `(…, h, w)` are sampled on the way back from frames of an image of `height` × `width`."""
    return sampling_grid(normalise(matrices, height, width), h, w, dtype, device)


def frame_weights(
    valid: Tensor,
    genotype: Clip,
    steps: tuple[float, ...],
    size: tuple[int, int],
    image_size: tuple[int, int],
    cells: tuple[int, int] | None = None,
) -> Tensor:
    """Return how much of every pixel of each frame's map shows the valid area: `(B, S, 1, h, w)`.

    `valid` `(B, 1, H, W)` is 1 on the image and 0 on padding; `size` is (h, w) of the maps, and `cells` that of
    the map where the clip began, as in `unwarp_clip`.
    """
    height, width = check_size(image_size, "image_size")
    if valid.ndim != 4 or valid.shape[1:] != (1, height, width):
        raise InputError(f"valid must have the shape (B, 1, {height}, {width}), got {tuple(valid.shape)}")
    small = nn.functional.adaptive_avg_pool2d(valid, size)
    # The matrices of the image in pixels of the map: conjugated by the ratio of the sizes.
    matrices = genotype.step_matrices(steps, height, width, cells=cells)
    matrices = constant(conjugated, matrices, size[0] / height, size[1] / width)
    # Beyond the canvas the area goes on as at its edge: images that fill it get the mask of images without `valid`.
    return warp(small, matrices, padding="border", mirrored=[genotype.mirrored(step) for step in steps])
