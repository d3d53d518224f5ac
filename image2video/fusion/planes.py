"""A share of the channels as planes of its own, where a frame's channels lie side by side in memory.

In tokens `(N, L, C)` and maps `(N, H, W, C)` the planes of some channels are strided, and norms, products and sums over
planes take up to twice as long on them. So the share is copied out as `(N, p, H, W)`, and what a fusion makes of it is
copied in again. The rest of the channels and the prefix tokens are copied once, with the whole tensor, each way.
"""

from typing import Any

import torch
from torch import Tensor

from image2video.trace.layout import Layout, is_channels_last


def lies_apart(frames: Tensor, layout: Layout) -> bool:
    """Whether `share_apart` serves these frames: maps or tokens on a CPU whose channels are innermost in memory."""
    if layout.spatial == "none" or frames.device.type != "cpu":
        return False
    if layout.channel_dim == 1:
        return layout.spatial == "map" and is_channels_last(frames)
    return frames.stride(-1) == 1


def share_apart(frames: Tensor, layout: Layout, channels: int) -> tuple[Tensor, Tensor]:
    """Copy the first channels out as maps.

    Args:
        frames: in `layout`, prefix tokens included.
        layout: where the channels, the positions and the prefix tokens are.
        channels: how many, p.

    Returns:
        The share `(N, p, H, W)`, contiguous, and the frames, of which `share_joined` takes the rest.
    """
    share, rest = _Apart.apply(frames, layout, channels)
    return share, rest


def share_joined(share: Tensor, rest: Tensor, layout: Layout) -> Tensor:
    """Return a copy of frames with a share of the channels in place of theirs.

    Args:
        share: `(N, p, H, W)`.
        rest: the frames that `share_apart` returned.
        layout: theirs.

    Returns:
        A tensor like the frames.
    """
    joined: Tensor = _Joined.apply(share, rest, layout)
    return joined


class _Apart(torch.autograd.Function):
    """`share_apart`; the gradient of the frames has room for that of the share, and is copied once."""

    @staticmethod
    def forward(ctx: Any, frames: Tensor, layout: Layout, channels: int) -> tuple[Tensor, Tensor]:
        ctx.layout = layout
        return _planes(frames, layout, channels).contiguous(), frames.view_as(frames)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_share, grad_rest = grads
        return _with_share(grad_share, grad_rest, ctx.layout), None, None


class _Joined(torch.autograd.Function):
    """`share_joined`; what the gradient of the rest holds at the share is overwritten by `_Apart`."""

    @staticmethod
    def forward(ctx: Any, share: Tensor, rest: Tensor, layout: Layout) -> Tensor:
        ctx.how = layout, share.shape[1]
        return _with_share(share, rest, layout)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        return _planes(grad_out, *ctx.how).contiguous(), grad_out, None


def _planes(frames: Tensor, layout: Layout, channels: int) -> Tensor:
    """View the first channels as `(N, p, H, W)`."""
    if layout.prefix_tokens:
        # A slice: autograd lets nobody write to one of the views that a split returns.
        frames = frames.narrow(
            layout.token_dim, layout.prefix_tokens, frames.shape[layout.token_dim] - layout.prefix_tokens
        )
    return layout.to_maps(frames)[:, :channels]


def _with_share(share: Tensor, rest: Tensor, layout: Layout) -> Tensor:
    """Copy frames, and write a share into the copy; autograd follows both where it is to."""
    out = rest.clone()
    _planes(out, layout, share.shape[1]).copy_(share)
    return out
