"""Steps 2 to 5 of GSF in plain operations: what compilers, exports and tracers see."""

import torch
from torch import Tensor
from torch.nn import functional

from image2video.fusion.gate import interleave
from image2video.fusion.shift import Padding, shift_frames


def plain_fuse(
    share: Tensor,
    rest: Tensor,
    gate: Tensor,
    scale: Tensor | None,
    kernel: Tensor,
    bias: Tensor,
    T: int,
    parts: int,
    padding: Padding,
) -> Tensor:
    """Gate, shift, fuse and interleave the share of the channels, and join the rest to it.

    Args:
        share: `(N, p, H, W)` with N = B·T·parts, the fused channels x.
        rest: `(N, C - p, H, W)`, passed on.
        gate: `(N, 2, H, W)`, one plane g per half of the share.
        scale: `(p,)` of the residual form, or None for the published one, which interleaves.
        kernel: `(2, 2, 3, 3)`, the two fusing convolutions.
        bias: `(2,)`, theirs.
        T: frames per clip.
        parts: rows per frame.
        padding: of the shift.

    Returns:
        `(N, C, H, W)`.
    """
    halves = share.unflatten(1, (2, -1))
    gated = (halves * gate.unsqueeze(2)).flatten(1, 2)
    moved = shift_halves(gated, T, parts, padding)
    weights = fusion_weights(gated.mean((2, 3)), share.mean((2, 3)), kernel, bias, T, parts, padding)
    fused = torch.lerp(share - gated, moved, weights.to(share.dtype)[:, :, None, None])
    fused = interleave(fused) if scale is None else torch.lerp(share, fused, scale[:, None, None])
    return torch.cat([fused, rest], dim=1)


def shift_halves(values: Tensor, T: int, parts: int, padding: Padding) -> Tensor:
    """Give the first half of the channels the next frame's values, the second the previous frame's."""
    first, second = values.chunk(2, dim=1)
    moved = [
        shift_frames(first, T, 1, parts=parts, padding=padding),
        shift_frames(second, T, -1, parts=parts, padding=padding),
    ]
    return torch.cat(moved, dim=1)


def fusion_weights(
    gated: Tensor, whole: Tensor, kernel: Tensor, bias: Tensor, T: int, parts: int, padding: Padding
) -> Tensor:
    """Compute a `(N, p)` from the spatial means of y and x, both `(N, p)`.

    What the convolutions see are the `(channel, time)` planes of shifted y and of r = x - y, one pair per half.
    """
    p = gated.shape[1]
    means = torch.stack([shift_halves(gated, T, parts, padding), whole - gated])
    maps = means.view(2, -1, T, parts, 2, p // 2).permute(1, 3, 4, 0, 5, 2).reshape(-1, 4, p // 2, T)
    weights = torch.sigmoid(functional.conv2d(maps, kernel, bias, padding=1, groups=2))
    return weights.view(-1, parts, 2, p // 2, T).permute(0, 4, 1, 2, 3).reshape(-1, p)
