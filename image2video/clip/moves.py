"""How the frames of a clip come from one image, or from one map of it: by slices, or by the points that they sample."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from image2video.clip.any_clip import Clip
from image2video.clip.kept import bytes_of, kept_grid
from image2video.clip.matrices import conjugated
from image2video.clip.sampling import frame_grid, matrix_device
from image2video.clip.slices import Shift
from image2video.trace.capture import constant, goes_into_export, is_captured


class Moves(NamedTuple):
    """How every frame is made; see `frames_at`.

    Attributes:
        shifts: how frame s is sliced; None where it is sampled.
        grid: the points `(S', h, w, 2)` of the sampled frames, in order; None where there are none.
    """

    shifts: tuple[Shift | None, ...]
    grid: Tensor | None


def image_moves(clip: Clip, steps: tuple[float, ...], like: Tensor, dtype: torch.dtype) -> Moves:
    """Return how frames of images `like` `(B, C, H, W)` are made at the given powers, with points of a dtype.

    Frames that are mirrored and shifted by whole pixels alone are slices. In graphs, which may stand for images of
    other sizes, whole shifts are sampled.
    """
    height, width = like.shape[-2:]
    if is_captured():
        return _moves(clip, steps, (height, width), None, like, dtype, sized=False)
    size = int(height), int(width)
    key = ("image", clip, steps, size, dtype)
    return kept_grid(like.device, lambda: _moves(clip, steps, size, None, like, dtype, sized=True), _bytes, *key)


def map_moves(
    clip: Clip, steps: tuple[float, ...], image_size: tuple[int, int], like: Tensor, dtype: torch.dtype
) -> Moves:
    """Return the same for maps `like` `(B, C, h, w)` of images of a size, moved as `map_clip` says."""
    h, w = like.shape[-2:]
    # A graph for many sizes must not be decided by one of them.
    sized = not goes_into_export(h, w)
    if is_captured():
        return _moves(clip, steps, (h, w), image_size, like, dtype, sized=sized)
    size, of_image = (int(h), int(w)), (int(image_size[0]), int(image_size[1]))
    key = ("map", clip, steps, size, of_image, dtype)
    return kept_grid(like.device, lambda: _moves(clip, steps, size, of_image, like, dtype, sized=sized), _bytes, *key)


def _moves(
    clip: Clip,
    steps: tuple[float, ...],
    size: tuple[int, int],
    image_size: tuple[int, int] | None,
    like: Tensor,
    dtype: torch.dtype,
    *,
    sized: bool,
) -> Moves:
    """Work the moves out; `sized` allows slices that the size decides, `image_size=None` stands for images."""
    shifts = tuple([_shift(clip, step, size, sized=sized) for step in steps])
    sampled = [step for step, shift in zip(steps, shifts, strict=True) if shift is None]
    if not sampled:
        return Moves(shifts, None)
    device = matrix_device(like)
    if image_size is None:
        matrices = clip.step_matrices(sampled, *size, device)
    else:
        matrices = clip.step_matrices(sampled, *image_size, device, cells=size)
        matrices = constant(conjugated, matrices, size[0] / image_size[0], size[1] / image_size[1])
    grid = constant(frame_grid, matrices, tuple(range(len(sampled))), *size, dtype, like.device)
    return Moves(shifts, grid)


def _shift(clip: Clip, step: float, size: tuple[int, int], *, sized: bool) -> Shift | None:
    """Tell how a frame is sliced; None where it has to be sampled."""
    axes = clip.mirrored(step)
    if axes is not None:
        return Shift(axes, 0, 0)
    return clip.whole_shift(step, *size) if sized else None


def _bytes(moves: Moves) -> int:
    return 0 if moves.grid is None else bytes_of(moves.grid)
