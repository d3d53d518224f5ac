"""The frames of one call at the places inside of a network, as relaxed cells make and move them."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from image2video.clip.map_frames import check_maps
from image2video.clip.memory import check_clip_memory
from image2video.search.cell.graph import CellTrace
from image2video.search.cell.mixed_frames import Mix, MixedFrames


class PlaceFrames:
    """What makes the frames of one call at the places inside of a network: a `PlaceMaker`, and at one a `FrameMaker`.

    Every call has its own, and it is equal to no other: a block that is recomputed asks that of its own forward.

    Args:
        frames: of each place.
        mixes: of each place; None where the frames stay as they are.
        T: frames of the clip.
        begun: whether the network gets frames, and not images.
        checkpointed: whether frames are computed again in the backward pass.
    """

    def __init__(
        self,
        frames: Sequence[MixedFrames],
        mixes: Sequence[Mix | None],
        T: int,
        *,
        begun: bool,
        checkpointed: bool = False,
    ) -> None:
        self.T, self.begun, self.checkpointed = T, begun, checkpointed
        self._frames, self._mixes = tuple(frames), tuple(mixes)

    @property
    def counts(self) -> tuple[int, ...]:
        """Rows per image before the first place inside of the network, and behind each of those places."""
        return (self.T if self.begun else 1, *[self.T] * len(self._frames))

    def parents_at(self, place: int) -> tuple[int, ...]:
        """Which row each row behind a place is made of."""
        return tuple(range(self.T)) if self.begun or place > 0 else (0,) * self.T

    def place_frames(self, place: int, maps: Tensor, image_size: tuple[int, int]) -> Tensor:
        """The rows `(B·T, C, h, w)` behind a place of those before it, batch-major."""
        check_maps(maps)
        frames, mix = self._frames[place], self._mixes[place]
        if self.begun or place > 0:
            move = functools.partial(moved, frames, image_size=image_size)
            return computed(move, maps, mix, checkpointed=self.checkpointed)
        check_clip_memory(maps, self.T)
        make = functools.partial(made, frames, trace=CellTrace(0), T=self.T, image_size=image_size)
        return computed(make, maps, mix, checkpointed=self.checkpointed).flatten(0, 1)

    def map_frames(self, maps: Tensor, image_size: tuple[int, int], T: int | None = None) -> Tensor:
        """The frames of maps `(B, C, h, w)` at the only place, batch-major."""
        assert T in (None, self.T), "the cell's own number of frames is that of the call"
        return self.place_frames(0, maps, image_size)


def computed(make: functools.partial[Tensor], maps: Tensor, mix: Mix | None, *, checkpointed: bool) -> Tensor:
    """What a place makes of maps; where they are `checkpointed`, nothing of it is kept for the backward pass."""
    if not (checkpointed and torch.is_grad_enabled()):
        return make(maps, mix)
    again: Tensor = checkpoint(make, maps, mix, use_reentrant=False, preserve_rng_state=False)
    return again


def made(
    frames: MixedFrames,
    maps: Tensor,
    mix: Mix | None,
    *,
    trace: CellTrace,
    T: int,
    image_size: tuple[int, int] | None = None,
) -> Tensor:
    """The clip `(B, T, C, h, w)` of images or maps."""
    return maps.unsqueeze(1).expand(-1, T, -1, -1, -1) if mix is None else frames.make(maps, mix, trace, image_size)


def moved(frames: MixedFrames, maps: Tensor, mix: Mix | None, *, image_size: tuple[int, int]) -> Tensor:
    """Maps of frames, moved once more."""
    return maps if mix is None else frames.move(maps, mix, image_size)
