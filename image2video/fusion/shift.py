"""Moving frames by one step along T, built from concatenation alone.

Assignment to slices would export wrongly and be wrong under data parallelism. The gradient of a split is one
concatenation, while the gradient of each slice would fill a tensor with zeros.
"""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional

from image2video.errors import InputError
from image2video.trace.layout import is_channels_last

Padding = Literal["zeros", "replicate", "circular"]


def check_padding(padding: str) -> None:
    """Raise `InputError` unless `padding` names a way to fill the frame that has no neighbour."""
    if padding not in get_args(Padding):
        raise InputError(f"padding must be one of {', '.join(get_args(Padding))}, got {padding!r}")


class Shift(NamedTuple):
    """How frames move along T.

    Args:
        T: frames per clip.
        parts: rows per frame.
        padding: what the frame without a neighbour takes.
    """

    T: int
    parts: int
    padding: Padding


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
        # As (N, H, W, C) it is contiguous, and a concatenation keeps it so.
        return _shift(frames.permute(0, 2, 3, 1), T, step, parts, padding).permute(0, 3, 1, 2)
    return _shift(frames, T, step, parts, padding)


def shift_halves(frames: Tensor, shift: Shift) -> Tensor:
    """Give the first half of the channels the next frame's values, the second the previous frame's."""
    T, parts, padding = shift
    first, second = frames.chunk(2, dim=1)
    moved = [
        shift_frames(first, T, 1, parts=parts, padding=padding),
        shift_frames(second, T, -1, parts=parts, padding=padding),
    ]
    return torch.cat(moved, dim=1)


def shares_moved(frames: Tensor, shift: Shift, fold: int, dim: int) -> Tensor:
    """Copy frames, the first `fold` channels moved by +1 and the next `fold` by -1, as `shift_frames` moves them.

    It writes to the copy, so that no gradient flows. `dim` is that of the channels; the memory format is kept.
    """
    T, parts, padding = shift
    out = frames.clone()
    rest = (T - 1) * parts
    for start, target, source in ((0, 0, parts), (fold, parts, 0)):
        _block(out, shift, target, rest, dim, start, fold).copy_(_block(frames, shift, source, rest, dim, start, fold))
        # The frame without a neighbour is the last one of the first share, and the first one of the second.
        edge = rest if target == 0 else 0
        if padding == "zeros":
            _block(out, shift, edge, parts, dim, start, fold).zero_()
        elif padding == "circular":
            values = _block(frames, shift, rest - edge, parts, dim, start, fold)
            _block(out, shift, edge, parts, dim, start, fold).copy_(values)
    return out


def _block(frames: Tensor, shift: Shift, row: int, rows: int, dim: int, channel: int, channels: int) -> Tensor:
    """View rows `row` to `row + rows` of every clip, and some channels, as `(B, rows, …)`: one view for three."""
    size, strides = [*frames.shape], [*frames.stride()]
    of_clip = shift.T * shift.parts
    offset = frames.storage_offset() + row * strides[0] + channel * strides[dim]
    size[dim] = channels
    size[:1], strides[:1] = [size[0] // of_clip, rows], [of_clip * strides[0], strides[0]]
    return frames.as_strided(size, strides, offset)


def _shift(frames: Tensor, T: int, step: int, parts: int, padding: Padding) -> Tensor:
    """Shift frames whose memory lies in the order of their dimensions."""
    if step not in (1, -1):
        raise InputError(f"step must be 1 (take the next frame) or -1 (take the previous frame), got {step}")
    clip = frames.unflatten(0, (-1, T * parts))
    if T == 1:
        return torch.zeros_like(frames) if padding == "zeros" else frames
    # `lost` is the frame whose values no other frame takes.
    rest = (T - 1) * parts
    if step == 1:
        lost, kept = clip.split([parts, rest], dim=1)
    else:
        kept, lost = clip.split([rest, parts], dim=1)
    if padding == "zeros":
        if torch.jit.is_tracing():  # The TorchScript exporter of ONNX would keep the size of zeros_like for good.
            beside = (0, parts) if step == 1 else (parts, 0)
            return functional.pad(kept, (0, 0) * (clip.ndim - 2) + beside).flatten(0, 1)
        fill = torch.zeros_like(lost)
    elif padding == "circular":
        fill = lost
    else:  # The frame without a neighbour is at the end of `kept` where the gap is.
        fill = kept[:, -parts:] if step == 1 else kept[:, :parts]
    return torch.cat([kept, fill] if step == 1 else [fill, kept], dim=1).flatten(0, 1)
