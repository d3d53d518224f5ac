"""The two functions that reshape between clips and frames."""

from __future__ import annotations

from torch import Tensor

from image2video.clip.checks import check_frames
from image2video.errors import InputError


def clip_to_frames(clip: Tensor) -> Tensor:
    """Reshape a clip to frames, batch-major: frame t of image b is row b·T + t.

    Args:
        clip: `(B, T, …)`.

    Returns:
        `(B·T, …)`.

    Raises:
        InputError: fewer than two dimensions.
    """
    if clip.ndim < 2:
        raise InputError(f"a clip must have the shape (B, T, …), got {tuple(clip.shape)}")
    return clip.flatten(0, 1)


def frames_to_clip(frames: Tensor, T: int) -> Tensor:
    """Reshape frames to a clip, the inverse of `clip_to_frames`.

    Args:
        frames: `(B·T, …)`.
        T: frames per image.

    Returns:
        `(B, T, …)`.

    Raises:
        InputError: a number of rows that is not a multiple of T.
        InputTypeError: a T that is no integer.
    """
    T = check_frames(T)
    if frames.ndim < 1 or frames.shape[0] % T != 0:
        raise InputError(
            f"frames of T = {T} must have B·T rows, got the shape {tuple(frames.shape)}, whose first size is not a "
            f"multiple of {T}; pass the T that the clip was made with"
        )
    return frames.unflatten(0, (-1, T))
