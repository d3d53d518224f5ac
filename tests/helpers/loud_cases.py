"""Cells whose τ is set by hand, so that a useless op is loud, before networks that need another op; trained briefly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from search_cases import Arrays
from torch import Tensor, nn

from image2video.search import SearchConfig, SearchSpace
from image2video.search.epochs import search_epoch
from image2video.search.run import SearchRun
from image2video.search.score.network import build_network
from image2video.search.setup import Setup

OPS = ("translate_x(0.06)", "translate_y(0.06)", "rotate(10)", "scale(1.1)", "identity")
LEVEL = 2.0
NEEDED = 0
"""The op that brings the cue of `planted` into the window of `window_network`."""
NORMS: dict[str, Any] = {
    "batch": nn.BatchNorm2d,
    "layer": lambda channels: nn.GroupNorm(1, channels),
    "group": lambda channels: nn.GroupNorm(4, channels),
    "none": lambda channels: nn.Identity(),
}


def bright(count: int, seed: int, *, kind: str = "place", level: float = LEVEL, cue: float = 2.0) -> Arrays:
    """24×32 bright noise with a bar 6 pixels left of the centre: outside the window.

    The images are bright, so a part of the clip that is masked makes all of it darker. The class is the `place` of the
    bar (the upper or the lower half), or its `presence`, which is a question of brightness alone.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = level + 0.25 * torch.randn(count, 1, 24, 32, generator=generator)
    if kind == "place":
        images[labels == 0, 0, 10:12, 8:12] += cue
        images[labels == 1, 0, 12:14, 8:12] += cue
    else:
        images[labels == 1, 0, 10:14, 8:12] += cue
    return Arrays(images, labels)


class Window(nn.Module):
    """The 4×4 pixels at the centre, less the brightness of the images."""

    def forward(self, images: Tensor) -> Tensor:
        top, left = images.shape[-2] // 2 - 2, images.shape[-1] // 2 - 2
        return images[..., top : top + 4, left : left + 4] - LEVEL


def window_network(norm: str, seed: int) -> nn.Module:
    """Two convolutions with norms that see nothing but the window."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            Window(),
            nn.Conv2d(1, 8, 3, padding=1),
            NORMS[norm](8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            NORMS[norm](8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(128, 2),
        )


def loud_row(loud: int, weight: float, count: int = len(OPS)) -> Tensor:
    """τ of an edge whose softmax gives one op `weight` and the others equal parts of the rest."""
    weights = torch.full((count,), (1 - weight) / (count - 1))
    weights[loud] = weight
    return weights.log()


def trained_run(network: nn.Module, space: SearchSpace, rows: Sequence[Tensor], data: Arrays, **options: Any) -> SearchRun:
    """A search whose τ is `rows` and stays so while the network is trained through the cell."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = {"T": 5, "epochs": 6, "batch_size": 32, "lr": 0.05, "fusion": "none", "device": "cpu"}
        config = SearchConfig(**{**settings, **options})
        size = (int(data.images.shape[1]), int(data.images.shape[2]), int(data.images.shape[3]))
        fused = build_network(network, config.fusion, residual=True, input_size=size)
        train, held_out = data.split(0.5, seed=0)
        run = SearchRun(fused, Setup(config, space, Accelerator(cpu=True)), train, held_out)
        with torch.no_grad():
            run.cell.tau.copy_(torch.stack(list(rows)))
        for epoch in range(config.epochs):
            search_epoch(run, epoch, moves_tau=False)
    return run


def scored_as(run: SearchRun, **options: Any) -> SearchRun:
    """The same search with other settings of its scores, and with no decision."""
    run.config = replace(run.config, **options)
    run.state.edges, run.state.nodes = [], []
    run.state.decisions.ops, run.state.decisions.sources = {}, {}
    return run


def planted_run(
    norm: str, loud: int, weight: float, seed: int, images: int = 768, kind: str = "place", **options: Any
) -> SearchRun:
    """One edge with five ops, of which `loud` has the largest weight and `NEEDED` alone shows the class."""
    space = SearchSpace("one_edge", OPS, nodes=1)
    return trained_run(
        window_network(norm, seed), space, [loud_row(loud, weight)], bright(images, seed, kind=kind), seed=seed, **options
    )
