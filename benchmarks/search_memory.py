"""Peak memory of a search step (τ step, then weight step) against a training step of the same network.

    python benchmarks/search_memory.py --out benchmarks/results/search_memory_cpu.json

`peak`: what a step holds over what was there before it, on CUDA by the allocator, elsewhere by the storages of all
tensors that are alive. `saved`: the part of it that autograd keeps for the backward pass; what a checkpointed block
saves while it is computed again counts in `peak` alone. The training step makes its clip itself.

Targets: at T = 8 at most 2.2 times the training step, 1.3 with one path per step; and a search step at T = 32 with
activation checkpointing takes no more than one at T = 8 without. `4 pieces` works through the batch in four parts
(`accumulate=4`, a quarter of the batch size).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from harness import arguments, write_result
from live_memory import saved_bytes
from search_step import build_steps

from image2video import Image2Video
from image2video.search import SearchConfig
from image2video.search.cell.draw import Draw
from image2video.training.live_memory import peak_bytes

CHAIN = "translate_x(0.06) > rotate(10)"
MIB = 2**20


@dataclass(frozen=True)
class Case:
    """One step to measure, and what it is set against."""

    name: str
    frames: int = 8
    space: str = "affine5"
    relaxation: str = "mixture"
    second_order: bool = False
    checkpoint_activations: bool = False
    pieces: int = 1
    against: str | None = "training"
    target: float | None = None


CASES = (
    Case("training", against=None),
    Case("search", target=2.2),
    Case("search, single path", relaxation="single_path", target=1.3),
    Case("search, second order", second_order=True),
    Case("search, autoaugment13", space="autoaugment13"),
    Case("search, autoaugment13, single path", space="autoaugment13", relaxation="single_path"),
    Case("search, checkpointed", checkpoint_activations=True),
    Case("search, T = 32, checkpointed", frames=32, checkpoint_activations=True, against="search", target=1.0),
    Case("search, T = 32, checkpointed, 4 pieces", 32, checkpoint_activations=True, pieces=4, against="search"),
)


def main() -> None:
    parser = arguments(__doc__ or "", repeats=1)
    parser.add_argument("--model", default="cifar_resnet18", help="the network behind the cell")
    parser.add_argument("--size", type=int, default=32, help="pixels per side")
    parser.add_argument("--fusion", default="gsf", help="fusion of the network")
    parser.add_argument("--batch", type=int, default=4, help="images per step")
    parser.add_argument("--precision", default="no", choices=("no", "bf16", "fp16"), help="mixed precision")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found: dict[str, tuple[int, int]] = {}
    results = []
    for case in CASES:
        saved, peak = found[case.name] = measure_case(case, options)
        reference = found[case.against or case.name]
        ratios = (saved / reference[0], peak / reference[1])
        results.append(
            {
                "step": case.name,
                "space": case.space,
                "frames": case.frames,
                "saved_mib": saved / MIB,
                "peak_mib": peak / MIB,
                "against": case.against,
                "saved_ratio": ratios[0],
                "peak_ratio": ratios[1],
                "target": case.target,
                "met_saved": None if case.target is None else ratios[0] <= case.target,
                "met_peak": None if case.target is None else ratios[1] <= case.target,
            }
        )
    settings = {key: value for key, value in vars(options).items() if key not in ("out", "repeats")}
    write_result(options.out, "search_memory", {"settings": settings, "results": results})


def measure_case(case: Case, options: Any) -> tuple[int, int]:
    """Saved and peak bytes of one step, after a first one that makes the optimisers' own state."""
    config = SearchConfig(
        T=case.frames,
        space=case.space,
        batch_size=options.batch // case.pieces,
        accumulate=case.pieces,
        relaxation=case.relaxation,
        second_order=case.second_order,
        checkpoint_activations=case.checkpoint_activations,
    )
    steps = build_steps(config, options.model, options.size, options)
    bilevel, images, labels = steps.bilevel, steps.images, steps.labels
    video = Image2Video(CHAIN, T=case.frames)
    draw = Draw(config.temperature, options.seed) if case.relaxation == "single_path" else None

    def search() -> None:
        bilevel.tau_step(images, labels, (images, labels), draw)
        if draw is None:
            bilevel.weight_step(images, labels)
        else:
            bilevel.weight_step(images, labels, *draw.path(bilevel.cell.tau.detach(), bilevel.cell.space))

    def train() -> None:
        with torch.no_grad():
            clip = video(images)
        steps.train(clip)

    step = train if case.against is None else search
    # The first step makes the state of the optimisers, which is no part of a step's peak.
    step()
    steps.optimizer.zero_grad()
    saved = saved_bytes(step, [*steps.network.parameters(), *steps.network.buffers()])
    steps.optimizer.zero_grad()
    return saved, peak_bytes(step, steps.accelerator.device)


if __name__ == "__main__":
    main()
