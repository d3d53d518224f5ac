"""The greedy search of frames where the camera is tilted: a network that learned upright digits sees them turned.

    python benchmarks/greedy_tilt.py

The network is trained on digits as they are; then held-out ones are turned by 20°. A third of these chooses nothing and
judges. The search begins with the image itself, or with the best single frame; other rows are the best chains of two
spaces, with three frames.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from harness import write_result

from image2video import Genotype
from image2video.clip.sampling import warp
from image2video.data import load_data
from image2video.integrations.timm_backbones import build
from image2video.search import greedy_frames, rank_genotypes
from image2video.search.rank.gain import GainEstimate
from image2video.training import TrainConfig, train

PADDING = "border"  # black corners would tell the network that the image was turned


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--degrees", type=float, default=20.0)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "greedy_tilt.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    data = load_data("digits", image_size=16, holdout=0.4)
    network = build("cifar_resnet8", num_classes=data.num_classes, in_chans=data.input_size[0])
    train(network, data, TrainConfig(epochs=options.epochs, batch_size=64, lr=0.1, device="cpu", seed=options.seed))
    images, labels = next(iter(data.holdout.batches(data.holdout.num_images).epoch(0)))
    matrices = Genotype.parse(f"rotate({options.degrees:g})").step_matrices((1.0,), *images.shape[-2:])
    tilted = [(warp(images, matrices, padding=PADDING)[:, 0], labels)]
    rows = []
    for start in ("identity", "best"):
        choice = greedy_frames(network, tilted, count=68, start=start, padding=PADDING)
        best = choice.best_point
        rows.append(row(f"greedy_frames, start = {start}", str(choice.best), best.T, best.aggregate, choice.estimate))
    for space in ("affine5", "pose"):
        ranking = rank_genotypes(network, tilted, space=space, schedule="centred", padding=PADDING)
        entry = ranking.best_entry
        T = entry.cost or 1
        rows.append(row(f"rank_genotypes, {space}", str(entry.genotype), T, entry.aggregate, ranking.estimate))
    with torch.no_grad():
        upright = (network.eval()(images).argmax(1) == labels).double().mean().item()
    settings = {
        "upright_accuracy": 100 * upright,
        "degrees": options.degrees,
        "epochs": options.epochs,
        "images": len(labels),
        "padding": PADDING,
    }
    columns = ("how", "found", "T", "bare", "accuracy", "gain")
    write_result(options.out, "greedy_tilt", {"settings": settings, "results": rows}, columns=columns)


def row(how: str, found: str, frames: int, aggregate: str, estimate: GainEstimate | None) -> dict[str, Any]:
    """What was found, and what it gains on the images that chose nothing, in percent and points."""
    assert estimate is not None
    low, high = estimate.interval
    return {
        "how": how,
        "found": found,
        "T": frames,
        "aggregate": aggregate,
        "judges": estimate.images,
        "bare": 100 * estimate.bare_accuracy,
        "accuracy": 100 * estimate.accuracy,
        "gain": 100 * estimate.gain,
        "gain_low": 100 * low,
        "gain_high": 100 * high,
    }


if __name__ == "__main__":
    main()
