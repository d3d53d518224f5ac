"""What rankings of trained networks cost beside the forward passes of the frames that they evaluate.

    python benchmarks/ranking_speed.py --threads 1 --weights lite0.safetensors

Both sides take turns (not with `--repeats 0`): a whole ranking, and the bare forward passes of as many frames in
batches of the same size. Then one `greedy_frames` of 100 candidates, in which the time inside the network is measured
beside the whole. Images are noise, cycled. Times are the processor's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from harness import arguments, measure_pair, ratio_fields, timing_fields, write_result
from torch import Tensor, nn

from image2video.search import greedy_frames, rank_genotypes
from image2video.training import load_weights

TARGET = 1.2
CANDIDATES = 100
BATCH = 32


class Timed(nn.Module):
    """A network that measures the time inside it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.seconds = network, 0.0

    def forward(self, x: Tensor) -> Tensor:
        """The network's output."""
        begun = time.process_time()
        out: Tensor = self.network(x)
        self.seconds += time.process_time() - begun
        return out


def main() -> None:
    parser = arguments(__doc__ or "", repeats=3)
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--weights", type=Path, default=None, help="random weights where none are given")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--few", type=int, default=48, help="images of the runs that take turns")
    parser.add_argument("--images", type=int, default=1000, help="images of the long run")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    network = timm.create_model(options.model).eval().to(memory_format=torch.channels_last)
    if options.weights is not None:
        load_weights(network, options.weights)
    results = []
    for name in RANKINGS if options.repeats else ():
        results.append(in_turn(name, network, options.size, options.few, options.repeats))
        print(results[-1], flush=True)
    if options.images:
        results.append(at_length(network, options.size, options.images))
    settings = {"model": options.model, "size": options.size, "candidates": CANDIDATES, "batch": BATCH}
    payload = {"settings": settings, "results": results}
    write_result(
        options.out, "ranking_speed", payload, columns=("ranking", "images", "frames", "ratio", "target", "met")
    )


def loader(count: int, size: int) -> list[tuple[Tensor, Tensor]]:
    """Noise and classes; of many images each is there several times."""
    images = torch.randn(min(count, 500), 3, size, size)[torch.arange(count) % 500]
    return [(images.contiguous(memory_format=torch.channels_last), torch.arange(count) % 1000)]


def greedy(network: nn.Module, data: list[tuple[Tensor, Tensor]]) -> int:
    """A greedy search of up to 8 frames; the frames that it evaluated."""
    return greedy_frames(network, data, count=CANDIDATES, T=8, batch_size=BATCH).evaluated


def ranked(network: nn.Module, data: list[tuple[Tensor, Tensor]]) -> int:
    """A ranking of chains with T = 3, both averages; the frames that it evaluated."""
    return rank_genotypes(network, data, count=CANDIDATES, aggregate=("mean", "mean_prob"), batch_size=BATCH).frames


RANKINGS: dict[str, Callable[[nn.Module, list[tuple[Tensor, Tensor]]], int]] = {
    "greedy_frames": greedy,
    "rank_genotypes": ranked,
}


def in_turn(name: str, network: nn.Module, size: int, images: int, repeats: int) -> dict[str, Any]:
    """A ranking of few images and the bare forward passes of its frames, in turn."""
    data = loader(images, size)
    frames = RANKINGS[name](network, data)
    batch = torch.cat([data[0][0]] * -(-BATCH // images))[:BATCH].contiguous(memory_format=torch.channels_last)

    def bare() -> None:
        with torch.no_grad():
            for start in range(0, frames, BATCH):
                network(batch[: min(BATCH, frames - start)])

    timing = measure_pair(lambda: RANKINGS[name](network, data), bare, repeats, warmup=0, clock=time.process_time)
    return row(name, images, frames, timing.ratio) | {
        **ratio_fields(timing),
        **timing_fields("ranking", timing.first),
        **timing_fields("bare", timing.second),
    }


def at_length(network: nn.Module, size: int, images: int) -> dict[str, Any]:
    """One long search, and the time inside the network during it."""
    timed, data = Timed(network), loader(images, size)
    begun = time.process_time()
    frames = greedy(timed, data)
    whole = time.process_time() - begun
    found = row("greedy_frames, inside one run", images, frames, whole / timed.seconds)
    return found | {"ranking_s": whole, "network_s": timed.seconds}


def row(name: str, images: int, frames: int, ratio: float) -> dict[str, Any]:
    """The fields that every row has."""
    return {
        "ranking": name,
        "images": images,
        "frames": frames,
        "ratio": ratio,
        "target": TARGET,
        "met": ratio <= TARGET,
    }


if __name__ == "__main__":
    main()
