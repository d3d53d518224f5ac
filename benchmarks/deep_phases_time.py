"""What rows that frames share save: the time of `preset:phases`, beside a row per frame and a mirror image.

    python benchmarks/deep_phases_time.py

Inference on a batch of random images, as a multiple of the bare network's on the same batch, in alternating runs; the
processor's time, which other programs on the machine touch less. `bare, as many images` is what the frames cost
that share nothing and are not made.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from harness import measure_pair, write_result
from torch import Tensor, nn

from image2video import VideoWrap

BATCH = 8
REPEATS = 11


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tf_efficientnet_lite0", "resnet18"])
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "deep_phases_time.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [row for name in options.models for row in measured(name, options.size)]
    payload = {"settings": {"size": options.size, "batch": BATCH, "repeats": REPEATS}, "results": rows}
    write_result(options.out, "deep_phases_time", payload, columns=("model", "clip", "cost", "ratio"))


def measured(name: str, size: int) -> Iterator[dict[str, Any]]:
    """Time every case of one network."""
    bare = timm.create_model(name).eval().to(memory_format=torch.channels_last)
    images = torch.randn(BATCH, 3, size, size, generator=torch.Generator().manual_seed(0))
    images = images.contiguous(memory_format=torch.channels_last)
    for clip, cost, model, batch in cases(bare, images):
        pair = measure_pair(lambda: model(batch), lambda: bare(images), REPEATS, clock=time.process_time)  # noqa: B023
        yield {
            "model": name,
            "clip": clip,
            "cost": cost,
            "ratio": pair.ratio,
            "ratio_low": pair.ratio_low,
            "ratio_high": pair.ratio_high,
        }


def cases(bare: nn.Module, images: Tensor) -> Iterator[tuple[str, float, nn.Module, Tensor]]:
    """Names of cases, with their cost, their network and what it gets."""
    size = tuple(images.shape[1:])
    for clip, genotype in (("mirror", "identity | flip_x"), ("phases", "preset:phases")):
        wrapped = VideoWrap(copy.deepcopy(bare), "none", genotype=genotype, input_size=size).eval()
        yield clip, wrapped.cost(), wrapped, images
    yield "phases, a row per frame", float(wrapped.T), EveryRow(wrapped), images
    yield "bare, as many images", float(wrapped.T), bare, images.repeat(wrapped.T, 1, 1, 1)


class EveryRow(nn.Module):
    """A wrapper by its other door, where every frame has a row of its own from the first place on."""

    def __init__(self, wrapped: VideoWrap) -> None:
        super().__init__()
        self.wrapped = wrapped

    def forward(self, images: Tensor) -> Tensor:
        """Return the average over the frames."""
        features = self.wrapped.forward_features(images)
        averaged: Tensor = self.wrapped.forward_head(features, image_size=(images.shape[-2], images.shape[-1]))
        return averaged


if __name__ == "__main__":
    with torch.inference_mode():
        main()
