"""Cells at several places of small networks, and the clips that they become, for the tests of the search there."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from image2video.clip.deep_clip import DeepClip
from image2video.clip.deep_video import DeepVideo
from image2video.clip.options import ClipOptions
from image2video.search import DeepCell, DeepSpace, SearchSpace

SIZE = (1, 12, 16)
SPACE = SearchSpace("one edge", ("rotate(12) > scale(1.1)", "translate_x(0.125)", "identity"), nodes=1)
"""A cell of one edge, whose chains are resampled once, as those of clips are."""


def stages(channels: int = 1, seed: int = 0) -> nn.Sequential:
    """Maps of 12×16, 6×8 and 3×4; places `0`, `2` and `4` come in where they begin."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
            nn.Tanh(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, 3),
        )
    return net.eval()


def one_hot(space: DeepSpace, ops: tuple[int, ...]) -> Tensor:
    """The mixing matrix with one candidate on each edge, of cells with one edge each."""
    return torch.eye(len(space.candidates), dtype=torch.float64)[list(ops)]


def clip_of(space: DeepSpace, ops: tuple[int, ...]) -> DeepClip:
    """The clip that these candidates are."""
    return DeepClip(tuple(zip(space.places, [space.candidates[op] for op in ops], strict=True)))


def video_of(space: DeepSpace, ops: tuple[int, ...], T: int = 3, **how: str) -> DeepVideo:
    """What makes its frames."""
    return DeepVideo(clip_of(space, ops), ClipOptions(T, space.schedule, **how))


def cell_at(places: tuple[str, ...], space: SearchSpace = SPACE, T: int = 3, **how: object) -> DeepCell:
    """A seeded cell at each place."""
    return DeepCell(DeepSpace(space, places), T, generator=torch.Generator().manual_seed(0), **how)
