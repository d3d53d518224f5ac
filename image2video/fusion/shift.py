"""Moving frames by one step along T, built from concatenation alone.

Slice assignment would export wrongly and be wrong under data parallelism; a split followed by a concatenation has a
concatenation as its gradient too, where separate slices would each fill a tensor of zeros.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from image2video.errors import InputError
from image2video.trace.layout import is_channels_last

Padding = Literal["zeros", "replicate", "circular"]


def check_padding(padding: str) -> None:
    """Raise `InputError` unless `padding` names a way to fill the frame that has no neighbour."""
    if padding not in get_args(Padding):
        raise InputError(f"padding is {padding!r}; it must be one of {', '.join(get_args(Padding))}.")


def shift_frames(frames: Tensor, T: int, step: int, *, parts: int = 1, padding: Padding = "zeros") -> Tensor:
    """Move frames along T within each clip: frame t takes frame t + step.

    Args:
        frames: `(B·T·parts, …)`, batch-major, then frame, then part.
        T: frames per clip.
        step: +1 (frame t takes the next frame) or -1 (it takes the previous frame).
        parts: rows per frame (windows, patches); each is moved with its like.
        padding: what the frame without a neighbour takes: zeros (Lin et al., ICCV 2019), its own value
            (`"replicate"`), or the frame at the clip's other end (`"circular"`).

    Returns:
        A tensor of the same shape and memory format.

    Example:
        >>> shift_frames(torch.tensor([1.0, 2.0, 3.0]), T=3, step=1)
        tensor([2., 3., 0.])
    """
    if is_channels_last(frames):
        # As (N, H, W, C) a channels_last tensor is contiguous, and a concatenation keeps it so.
        return _shift(frames.permute(0, 2, 3, 1), T, step, parts, padding).permute(0, 3, 1, 2)
    return _shift(frames, T, step, parts, padding)


def _shift(frames: Tensor, T: int, step: int, parts: int, padding: Padding) -> Tensor:
    if step not in (1, -1):
        raise InputError(f"step is {step}; it must be 1 (take the next frame) or -1 (take the previous frame).")
    clip = frames.unflatten(0, (-1, T * parts))
    if T == 1:
        return torch.zeros_like(frames) if padding == "zeros" else frames
    rest = (T - 1) * parts
    if step == 1:
        lost, kept = clip.split([parts, rest], dim=1)
    else:
        kept, lost = clip.split([rest, parts], dim=1)
    if padding == "zeros":
        fill = torch.zeros_like(lost)
    elif padding == "circular":
        fill = lost
    else:
        fill = kept[:, -parts:] if step == 1 else kept[:, :parts]
    return torch.cat([kept, fill] if step == 1 else [fill, kept], dim=1).flatten(0, 1)
