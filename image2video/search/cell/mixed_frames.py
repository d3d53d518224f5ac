"""The frames of one cell: made of images or of maps, or moved once more where they are there already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from image2video.clip.ops.op import full_precision
from image2video.clip.options import ClipOptions
from image2video.search.cell.graph import CellTrace, CellWalk
from image2video.search.cell.magnitudes import MagnitudeUnits
from image2video.search.cell.sums import amplitude
from image2video.search.cell.warps import CandidateWarps
from image2video.search.space.space import SearchSpace


class Mix(NamedTuple):
    """One way of mixing the candidates of a cell.

    Args:
        matrix: the weights `(edges, candidates)`; on the CPU they tell what has none.
        whole: whether the weights of all paths sum to 1.
        active: the one candidate of every edge that is computed, −1 for none; None where all are.
        values: learned magnitudes, a row per source or edge; None where they are fixed.
    """

    matrix: Tensor
    whole: bool
    active: tuple[int, ...] | None
    values: Sequence[Tensor] | None


class MixedFrames:
    """Frames as the mixture of a cell gives them; no parameters, no state.

    Args:
        space: candidates and graph.
        steps: the power of every frame.
        options: padding, interpolation and colours.
        units: what learned magnitudes stand for, where they are learned.
        later: whether the frames are there already, so that frames of equal powers may differ.

    Attributes:
        warps: the candidates.
    """

    def __init__(
        self,
        space: SearchSpace,
        steps: tuple[float, ...],
        options: ClipOptions,
        units: MagnitudeUnits | None,
        *,
        later: bool = False,
    ) -> None:
        self.space, self.T = space, len(steps)
        moved = [s for s in steps if s != 0]
        # Equal powers give equal frames of one picture: each is computed once.
        powers = tuple(moved) if later else tuple(dict.fromkeys(moved))
        self._still = tuple(t for t, s in enumerate(steps) if s == 0)
        self._moved = tuple(t for t, s in enumerate(steps) if s != 0)
        distinct = (0.0, *powers) if self._still else powers
        self._order = tuple(distinct.index(s) for s in steps)
        self.warps = CandidateWarps(space, powers, options, units)

    def make(self, images: Tensor, mix: Mix, trace: CellTrace, image_size: tuple[int, int] | None = None) -> Tensor:
        """The clip `(B, T, C, h, w)` of images or maps `(B, C, h, w)`; maps come with the (H, W) of their images."""
        with full_precision(images.device):
            return self._make(_wide(images), mix, trace, image_size).to(images.dtype)

    def move(self, frames: Tensor, mix: Mix, image_size: tuple[int, int]) -> Tensor:
        """Maps of frames `(B·T, C, h, w)`, batch-major, each moved at its own power; same shape and dtype."""
        with full_precision(frames.device):
            return self._move(_wide(frames), mix, image_size).to(frames.dtype)

    def _make(self, images: Tensor, mix: Mix, trace: CellTrace, image_size: tuple[int, int] | None) -> Tensor:
        B, C, H, W = images.shape
        picture = images.reshape(1, B * C, H, W)
        matrix = mix.matrix.to(images.dtype)
        weights = matrix.to(images.device)
        walk = CellWalk(self.warps, matrix, weights, trace, mix.active, mix.values, B, image_size)
        unique = walk.run(picture)
        if self._still:
            # The sum of all paths' weights is 1, and the picture is copied bit for bit, unless something is masked or
            # nodes sum.
            still = picture if mix.whole else picture * amplitude(self.space, weights)
            unique = torch.cat([still, unique])
        if self._order != tuple(range(unique.shape[0])):
            unique = unique.index_select(0, self.warps.index(self._order, unique))
        return unique.view(self.T, B, C, H, W).transpose(0, 1)

    def _move(self, frames: Tensor, mix: Mix, image_size: tuple[int, int]) -> Tensor:
        C, h, w = frames.shape[1:]
        B = frames.shape[0] // self.T
        pictures = frames.view(B, self.T, C, h, w).transpose(0, 1).reshape(self.T, B * C, h, w).unbind(0)
        matrix = mix.matrix.to(frames.dtype)
        weights = matrix.to(frames.device)
        walk = CellWalk(self.warps, matrix, weights, CellTrace(0), mix.active, mix.values, B, image_size)
        share = None if mix.whole else amplitude(self.space, weights)
        found = [picture if share is None else picture * share for picture in pictures]
        if self._moved:
            moved = walk.run(torch.stack([pictures[t] for t in self._moved]))
            for t, picture in zip(self._moved, moved.unbind(0), strict=True):
                found[t] = picture
        return torch.stack(found).view(self.T, B, C, h, w).transpose(0, 1).reshape(frames.shape)


def _wide(images: Tensor) -> Tensor:
    """Float32 in place of half precision."""
    return images.to(torch.float64 if images.dtype == torch.float64 else torch.float32)
