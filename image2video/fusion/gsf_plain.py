"""Steps 2 to 5 of GSF in plain operations: what compilers, exports and tracers see."""

import torch
from torch import Tensor
from torch.nn import functional

from image2video.fusion.gate import interleave
from image2video.fusion.shift import Shift, shift_halves


def plain_fuse(
    share: Tensor, rest: Tensor, gate: Tensor, scale: Tensor | None, kernel: Tensor, bias: Tensor, shift: Shift
) -> Tensor:
    """Gate, shift, fuse and interleave the share of the channels, and join the rest to it.

    Args:
        share: `(N, p, H, W)` with N = B·T·parts, the fused channels x.
        rest: `(N, C - p, H, W)`, passed on.
        gate: `(N, 2, H, W)`, one plane g per half of the share.
        scale: `(p,)` of the residual form, or None for the published one, which interleaves.
        kernel: `(2, 2, 3, 3)`, the two fusing convolutions.
        bias: `(2,)`, theirs.
        shift: how frames move along T.

    Returns:
        `(N, C, H, W)`.
    """
    halves = share.unflatten(1, (2, -1))
    gated = (halves * gate.unsqueeze(2)).flatten(1, 2)
    moved = shift_halves(gated, shift)
    weights = fusion_weights(gated.mean((2, 3)), share.mean((2, 3)), kernel, bias, shift)
    fused = torch.lerp(share - gated, moved, weights.to(share.dtype)[:, :, None, None])
    fused = interleave(fused) if scale is None else torch.lerp(share, fused, scale[:, None, None])
    return torch.cat([fused, rest], dim=1)


def fusion_weights(gated: Tensor, whole: Tensor, kernel: Tensor, bias: Tensor, shift: Shift) -> Tensor:
    """Compute a `(N, p)` from the spatial means of y and x, both `(N, p)`.

    What the convolutions see are the `(channel, time)` planes of shifted y and of r = x - y, one pair per half.
    """
    p = gated.shape[1]
    means = torch.stack([shift_halves(gated, shift), whole - gated])
    # (y or r, B, T, parts, half, channel) becomes (B, parts, half, y or r, channel, T): clips of parts are the batch.
    planes = means.view(2, -1, shift.T, shift.parts, 2, p // 2).permute(1, 3, 4, 0, 5, 2)
    maps = planes.reshape(-1, 4, p // 2, shift.T)
    weights = torch.sigmoid(functional.conv2d(maps, kernel, bias, padding=1, groups=2))
    return weights.view(-1, shift.parts, 2, p // 2, shift.T).permute(0, 4, 1, 2, 3).reshape(-1, p)
