"""Averaging over copies whose ranges of motion are learned with the weights: no fusion, no images held out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from image2video.clip.image_to_video import clip_to_frames, frames_to_clip
from image2video.clip.matrices import compose
from image2video.clip.ops.registry import get_op
from image2video.clip.sampling import warp, warp_frames

OPS = ("translate_x", "translate_y", "rotate", "scale", "shear_x")
UNITS = (0.1, 0.1, 15.0, 0.2, 10.0)
"""The motion of a width of 1, op by op: shares of the sides, degrees, the logarithm of a factor, degrees."""
WIDEST = 3.0
START = 0.3
WIDEN = 0.002
"""How much the loss falls per unit of a width.

Ten times as much drives all widths to `WIDEST` in a short run, whatever that does to the loss.
"""


def ranges_text(widths: Sequence[float]) -> str:
    """Learned widths in words: `±1.2% x, ±1.1% y, ±1.8°, scale ×1.02, shear ±0.9°`."""
    x, y, angle, log_scale, shear = (abs(width) * unit for width, unit in zip(widths, UNITS, strict=True))
    return f"±{x:.1%} x, ±{y:.1%} y, ±{angle:.1f}°, scale ×{math.exp(log_scale):.2f}, shear ±{shear:.1f}°"


class LearnedAveraging(nn.Module):
    """A network that predicts by the mean over T copies, moved at random within ranges that are learned.

    As Augerino (Benton et al., NeurIPS 2020): every copy takes each op at a power drawn from −1 … 1 of its width, the
    widths are trained with the weights on the training loss, and a bonus for wide ranges keeps them from collapsing.
    Departures: ops are composed one after the other (Augerino adds their generators before one exponential); the bonus
    is linear in every width and ends at `WIDEST` (there: the norm of all of them, up to a limit); training averages the
    logits of T copies (there: one copy), so that it costs what a clip of T frames does; evaluation draws the same T
    copies for every image, so that it is deterministic. Training draws from torch's global generator of the CPU. The
    state dict holds the backbone and `width` (5,), in `UNITS` of translate_x, translate_y, rotate, scale and shear_x.

    Args:
        backbone: images `(B, C, H, W)` -> logits `(B, K)`.
        T: copies per image.
        widen: how much the loss falls per unit of every width.

    """

    def __init__(self, backbone: nn.Module, *, T: int, widen: float = WIDEN) -> None:
        super().__init__()
        self.backbone, self.T, self.widen = backbone, T, widen
        self.width = initial_width()

    def forward(self, images: Tensor) -> Tensor:
        """The mean logits of T copies, `(B, K)`."""
        ranges, size = learned_ranges(self.width, self.widen), (images.shape[-2], images.shape[-1])
        if self.training:
            rows = images.repeat_interleave(self.T, dim=0).unsqueeze(1)
            frames = warp_frames(rows, moves(ranges, drawn_powers(len(images) * self.T), *size)).squeeze(1)
        else:
            frames = clip_to_frames(warp(images, moves(ranges, fixed_powers(self.T), *size)))
        logits = self.backbone(frames)
        return frames_to_clip(logits, self.T).float().mean(1).to(logits.dtype)


def initial_width() -> nn.Parameter:
    """The widths `(5,)` that every network begins with."""
    return nn.Parameter(torch.full((len(OPS),), START))


def drawn_powers(count: int) -> Tensor:
    """Powers from −1 … 1 of every op, `(count, 5)`, from torch's global generator of the CPU."""
    return 2 * torch.rand(count, len(OPS), device="cpu") - 1


def fixed_powers(count: int) -> Tensor:
    """The same powers every time, `(count, 5)`: those of evaluation."""
    return 2 * torch.rand(count, len(OPS), generator=torch.Generator().manual_seed(0), device="cpu") - 1


def learned_ranges(width: Tensor, widen: float) -> Tensor:
    """Widths `(5,)` in the units of their ops. Call it once a forward pass: every call adds the bonus to the gradient.

    The bonus is the gradient of a loss that falls by `widen` per unit of every width, up to `WIDEST`.
    """
    return _Bonus.apply(width, widen) * torch.tensor(UNITS, device=width.device)


def moves(ranges: Tensor, powers: Tensor, height: int, width: int) -> Tensor:
    """The matrices `(S, 3, 3)` of powers `(S, 5)` of ranges `(5,)`, for images of that size; differentiable."""
    steps = powers.to(ranges)
    matrices = None
    for index, name in enumerate(OPS):
        magnitude = ranges[index].exp() if name == "scale" else ranges[index]
        matrix = get_op(name).matrix
        assert matrix is not None  # they are geometric
        step = matrix(magnitude, steps[:, index], height, width)
        matrices = step if matrices is None else compose(step, matrices)
    assert matrices is not None
    return matrices


class _Bonus(torch.autograd.Function):
    """The widths as they are; backward, the bonus of `learned_ranges` is added to the gradient.

    It stands in the graph and not in the loss, so that no training loop needs to know of it.
    """

    @staticmethod
    def forward(ctx: Any, width: Tensor, widen: float) -> Tensor:
        ctx.save_for_backward(width)
        ctx.widen = widen
        return width.view_as(width)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        (width,) = ctx.saved_tensors
        return gradients[0] - ctx.widen * (width < WIDEST), None
