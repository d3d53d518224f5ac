"""How the frames of a clip at several places come about: the rows behind each place, and what they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from image2video.clip.any_clip import Clip
from image2video.clip.frame_set import FrameSet


class Walk(NamedTuple):
    """The rows of one image behind every place.

    Args:
        steps: for each place, the power (or number) at which each row that leaves it is moved there.
        parents: for each place, which of the rows that come in each of them is made of.
    """

    steps: tuple[tuple[float, ...], ...]
    parents: tuple[tuple[int, ...], ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Rows per image before the first place and behind each of them: `(1, …, T)`."""
        return (1, *(len(parents) for parents in self.parents))


class Kinds:
    """Which frames are moved alike at a place; read in compiled graphs, so that all is plain numbers.

    Args:
        clip: the chain or frame set there.
    """

    def __init__(self, clip: Clip) -> None:
        self._still = isinstance(clip, FrameSet) or not clip.chain
        self._first = [clip.frames.index(frame) for frame in clip.frames] if isinstance(clip, FrameSet) else []

    def of(self, step: float) -> float:
        """Return a number that is the same for frames that are moved alike."""
        if self._first:
            return self._first[int(step)]
        return 0 if self._still else step


def walk_of(kinds: Sequence[Kinds], steps: Sequence[float], shared: int) -> Walk:
    """Work out which rows stand behind every place.

    Args:
        kinds: of each place, in order.
        steps: the power (or number) of each frame.
        shared: behind how many of the places frames that are the same up to there are one row; behind all others every
            frame has a row of its own.

    Returns:
        The walk; with `shared=0` each image has T rows behind the first place.
    """
    frames = range(len(steps))
    keys: list[tuple[float, ...]] = [() for _ in frames]
    row_of = [0 for _ in frames]
    made: list[tuple[float, ...]] = []
    parents: list[tuple[int, ...]] = []
    for place, kind in enumerate(kinds):
        keys = [(*key, kind.of(step)) for key, step in zip(keys, steps, strict=True)]
        first = [keys.index(key) for key in keys] if place < shared else list(frames)
        rows = [frame for frame in frames if first[frame] == frame]
        made.append(tuple([steps[frame] for frame in rows]))
        parents.append(tuple([row_of[frame] for frame in rows]))
        row_of = [rows.index(first[frame]) for frame in frames]
    return Walk(tuple(made), tuple(parents))
