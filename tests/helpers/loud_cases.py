"""Cells whose τ is set by hand, so that a useless op is loud, before networks that need another op; trained briefly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from search_cases import Arrays
from torch import Tensor, nn

from image2video.search import SearchConfig, SearchSpace
from image2video.search.epochs import search_epoch, tune_epoch
from image2video.search.run import SearchRun
from image2video.search.score.network import build_network
from image2video.search.setup import Setup

OPS = ("translate_x(0.06)", "translate_y(0.06)", "rotate(10)", "scale(1.1)", "identity")
LEVEL = 2.0
LOUD = 4
"""The op that is loud: the identity, which shows nothing new."""
NEEDED = 0
"""The op that brings the cue of `planted` into the window of `window_network`."""
NORMS: dict[str, Any] = {
    "batch": nn.BatchNorm2d,
    "layer": lambda channels: nn.GroupNorm(1, channels),
    "group": lambda channels: nn.GroupNorm(4, channels),
    "none": lambda channels: nn.Identity(),
}


def bright(count: int, seed: int, *, kind: str = "presence", level: float = LEVEL, cue: float = 2.0) -> Arrays:
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
            nn.GELU(),
            nn.Conv2d(8, 8, 3, padding=1),
            NORMS[norm](8),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(128, 2),
        )


def whole_network(norm: str, seed: int) -> nn.Module:
    """Two convolutions with norms and a mean over the image: where in the image a thing is makes no difference."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 8, 4, stride=2, padding=1),
            NORMS[norm](8),
            nn.GELU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
            NORMS[norm](8),
            nn.GELU(),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 2),
        )


def loud_row(loud: int, weight: float, count: int = len(OPS)) -> Tensor:
    """τ of an edge whose softmax gives one op `weight` and the others equal parts of the rest."""
    weights = torch.full((count,), (1 - weight) / (count - 1))
    weights[loud] = weight
    return weights.log()


def new_run(network: nn.Module, space: SearchSpace, data: Arrays, **options: Any) -> SearchRun:
    """A search on two halves of the images that has done nothing yet."""
    settings = {"T": 5, "epochs": 5, "batch_size": 32, "lr": 0.05, "fusion": "none", "device": "cpu"}
    config = SearchConfig(**{**settings, **options})
    size = (int(data.images.shape[1]), int(data.images.shape[2]), int(data.images.shape[3]))
    fused = build_network(network, config.fusion, residual=True, input_size=size)
    train, held_out = data.split(0.5, seed=0)
    return SearchRun(fused, Setup(config, space, Accelerator(cpu=True)), train, held_out)


def trained_run(network: nn.Module, space: SearchSpace, row: Tensor, data: Arrays, **options: Any) -> SearchRun:
    """A search over one edge whose τ is `row`, and stays so while the network is trained through the cell."""
    run = new_run(network, space, data, **options)
    with torch.no_grad():
        run.cell.tau.copy_(row)
    for epoch in range(run.config.epochs):
        search_epoch(run, epoch, moves_tau=False)
    return run


def scored_as(run: SearchRun, **options: Any) -> SearchRun:
    """The same search with other settings of its scores, and with no decision."""
    run.config = replace(run.config, **options)
    run.state.edges, run.state.nodes = [], []
    run.state.decisions.ops, run.state.decisions.sources = {}, {}
    return run


def planted_run(norm: str, loud: int, weight: float, seed: int) -> SearchRun:
    """One edge with five ops, of which `loud` has the largest weight and `NEEDED` alone shows the class."""
    space = SearchSpace("one_edge", OPS, nodes=1)
    epochs = 12 if norm == "none" else 5  # without norms it learns more slowly
    network, row, data = window_network(norm, seed), loud_row(loud, weight), bright(640, seed)
    return trained_run(network, space, row, data, seed=seed, epochs=epochs)


def node_run(norm: str, seed: int) -> tuple[SearchRun, int]:
    """A cell of three nodes whose edges are all decided: only the edge (1, 3) brings the cue; its number comes too.

    The first and second nodes are the image itself.
    """
    space = SearchSpace("three_nodes", OPS, nodes=3)
    needed = space.edges.index((1, 3))
    run = new_run(window_network(norm, seed), space, bright(640, seed), seed=seed, lr=0.5)
    run.state.decisions.ops = {edge: NEEDED if edge == needed else LOUD for edge in range(len(space.edges))}
    run.state.edges.append({})  # the decision that is tuned after
    for epoch in range(run.config.epochs):
        tune_epoch(run, epoch, run.config.epochs, moves_tau=False)
    return run, needed


def useless_run(norm: str, seed: int) -> SearchRun:
    """One edge whose loud op is a shift, before a network that sees the whole image: the class is in sight always."""
    space = SearchSpace("one_edge", OPS, nodes=1)
    network = whole_network(norm, seed)
    return trained_run(network, space, loud_row(1, 0.4), bright(640, seed), seed=seed)
