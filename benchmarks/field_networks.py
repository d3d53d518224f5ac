"""The networks whose receptive fields benchmarks/receptive_field.py measures: bare, and with their clip."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from image2video import VideoWrap
from image2video.clip.genotype import Genotype
from image2video.data import DataSource
from image2video.integrations.timm_backbones import build
from image2video.receptive_field import prepare_random
from image2video.training import TrainConfig, train

CLIP = "translate_x(0.06) > rotate(10)"
FRAMES, SCHEDULE = 5, "from_zero"
CALIBRATION = 4
BARE, AVERAGED = "bare", "no fusion"


@dataclass(frozen=True)
class Clip:
    """What makes the frames."""

    genotype: str = CLIP
    T: int = FRAMES
    schedule: str = SCHEDULE
    padding: str = "zeros"

    def wrap(self, bare: nn.Module, fusion: str, size: tuple[int, int, int], seed: int) -> VideoWrap:
        """A copy of the bare network as a video network, its fusions as published."""
        torch.manual_seed(seed)
        return VideoWrap(
            copy.deepcopy(bare),
            fusion,
            genotype=Genotype.coerce(self.genotype),
            T=self.T,
            schedule=self.schedule,
            padding=self.padding,
            residual=False,
            input_size=size,
        ).eval()


def random_networks(
    model: str, images: Tensor, clip: Clip, fusions: Iterable[str], seed: int, **kwargs: Any
) -> dict[str, nn.Module]:
    """The bare network with random weights, beside copies of it: without fusion, and with each of the fusions."""
    size = (images.shape[1], images.shape[2], images.shape[3])
    torch.manual_seed(seed)
    bare = prepare_random(_bare(model, **kwargs), images[:CALIBRATION], seed=seed)
    found: dict[str, nn.Module] = {BARE: bare, AVERAGED: clip.wrap(bare, "none", size, seed)}
    for fusion in fusions:
        wrapped = clip.wrap(bare, fusion, size, seed)
        found[fusion.upper()] = prepare_random(wrapped, images[:CALIBRATION], batch_size=2, seed=seed)
    return found


def _bare(model: str, **kwargs: Any) -> nn.Module:
    if model.startswith("pspnet"):
        from field_segmentors import pspnet

        return pspnet(model)
    return build(model, **kwargs)


def noise(count: int, size: int, seed: int) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def trained_networks(
    model: str, source: DataSource, clip: Clip, size: tuple[int, int, int], epochs: int, seed: int
) -> tuple[dict[str, nn.Module], dict[str, float]]:
    """Bare, without fusion, TSM and GSF from one start, each trained alike; and their test scores in percent."""
    networks: dict[str, nn.Module] = {}
    scores = {}
    for name, fusion in ((BARE, None), (AVERAGED, "none"), ("TSM", "tsm"), ("GSF", "gsf")):
        torch.manual_seed(seed)
        network: nn.Module = build(model, num_classes=source.num_classes, in_chans=size[0])
        if fusion is not None:
            network = clip.wrap(network, fusion, size, seed).train()
        result = train(network, source, TrainConfig(epochs=epochs, batch_size=64, lr=0.1, seed=seed, device="cpu"))
        networks[name], scores[name] = network.eval(), round(100 * result.test_last.score, 1)
        print(f"{model}, {name}: {scores[name]}", flush=True)
    return networks, scores
