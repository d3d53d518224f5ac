"""What a wrapped network costs for T frames, beside T times the bare network: inference, one image.

    python benchmarks/cost_of_t.py --threads 1 --out benchmarks/results/cost_of_t_cpu.json \
        --figure docs/figures/cost_of_t_cpu.png

The wrapped network is `VideoWrap` with its defaults (GSF); it and the bare one take turns on the same image, and times
are the processor's. `ratio` is the wrapped network's time over the bare one's, `per_frame` that over T.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from harness import arguments, measure_pair, ratio_fields, timing_fields, write_result
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from image2video import VideoWrap
from image2video.cli.allocator import keep_memory

MODELS = ("resnet50", "tf_efficientnet_lite0", "vit_tiny_patch16_224")
FRAMES = (1, 2, 3, 5, 8)
SIZE = 224


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], repeats=7)
    parser.add_argument("--figure", type=Path, help="draw the ratios into this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    keep_memory()
    rows = []
    for model in MODELS:
        network = timm.create_model(model).eval()
        images = torch.rand(1, 3, SIZE, SIZE)
        for T in FRAMES:
            wrapped = VideoWrap(copy.deepcopy(network), T=T).eval()
            with torch.inference_mode():
                timing = measure_pair(
                    partial(wrapped, images),
                    partial(network, images),
                    options.repeats,
                    warmup=1,
                    clock=time.process_time,
                )
            row = {"network": model, "frames": T} | ratio_fields(timing) | {"per_frame": timing.ratio / T}
            rows.append(row | timing_fields("wrapped", timing.first) | timing_fields("bare", timing.second))
            print(f"{model}, T = {T}: {timing.ratio:.2f}", flush=True)
    settings = {"repeats": options.repeats, "seed": options.seed, "size": SIZE, "batch": 1, "fusion": "gsf"}
    columns = ("network", "frames", "ratio", "ratio_low", "ratio_high", "per_frame")
    write_result(options.out, "cost_of_t", {"settings": settings, "results": rows}, columns=columns)
    if options.figure is not None:
        draw(rows, options.figure)


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """One line per network over the line at which T frames cost T images."""
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(FRAMES, FRAMES, color="0.6", linestyle="--", label="T images through the bare network")
    for model, marker in zip(MODELS, "os^", strict=True):
        chosen = [row for row in rows if row["network"] == model]
        ratios = [row["ratio"] for row in chosen]
        spread = [
            [row["ratio"] - row["ratio_low"] for row in chosen],
            [row["ratio_high"] - row["ratio"] for row in chosen],
        ]
        axes.errorbar([row["frames"] for row in chosen], ratios, yerr=spread, marker=marker, capsize=2, label=model)
    axes.set(xlabel="frames T", ylabel="time, the bare network's as 1", xticks=FRAMES)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
