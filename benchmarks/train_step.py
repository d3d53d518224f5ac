"""A training step, or inference, of a wrapped backbone against the bare one on the same B·T frames.

    python benchmarks/train_step.py --repeats 7 --out benchmarks/results/train_step.json
    python benchmarks/train_step.py --cases training:vit_tiny_patch16_224:224:gsf --before CHECKOUT --processor-time

A step is forward, cross-entropy, backward and an SGD update, float32, on a CPU or an accelerator. The bare backbone
gets the B·T frames as images; the wrapped one makes its clip, fuses and averages. `clip_share` is what making the clip
takes of the bare network's time; in training at most 2 %. With `--before`, the same model of another checkout takes its
turn in the same run, and `before` is its ratio.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from harness import arguments, earlier, in_turn, ratio_of, write_result
from torch import Tensor, nn

GOALS = {
    ("training", "resnet50", "tsm"): 1.04,
    ("training", "resnet50", "gsm"): 1.2,
    ("training", "resnet50", "gsf"): 1.12,
    ("training", "vit_tiny_patch16_224", "gsf"): 1.15,
    ("training", "convnext_atto", "gsf"): 1.2,
    ("inference", "resnet50", "gsm"): 1.2,
    ("inference", "tf_efficientnet_lite0", "none"): 1.02,
    ("inference", "tf_efficientnet_lite0", "tsm"): 1.05,
    ("inference", "tf_efficientnet_lite0", "gsf"): 1.12,
    ("inference", "mobilenetv3_small_100", "none"): 1.05,
    ("inference", "mobilenetv3_small_100", "tsm"): 1.08,
    ("inference", "mobilenetv3_small_100", "gsf"): 1.15,
}
CASES = [f"training:resnet50:112:{fusion}" for fusion in ("none", "tsm", "gsm", "gsf")]


def step_of(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], object]:
    """One training step as a function of nothing."""
    model.to(images.device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def inference_of(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], object]:
    """One call without gradient as a function of nothing."""
    model.to(images.device).eval()

    def call() -> None:
        with torch.inference_mode():
            model(images)

    return call


def wrapped(checkout: Path | None, name: str, fusion: str, size: int, options: argparse.Namespace) -> nn.Module:
    """The wrapped network, by this package or by that of another checkout; its fusions act, as trained ones do."""
    with earlier(checkout):
        from image2video import VideoWrap

        torch.manual_seed(options.seed)
        backbone = timm.create_model(name, num_classes=10)
        # Not residual: a fresh residual fusion adds zeros, and does the same work.
        return VideoWrap(
            backbone, fusion=fusion, genotype=options.genotype, T=options.frames, input_size=(3, size, size)
        )


def measured(case: str, options: argparse.Namespace) -> dict[str, Any]:
    """One row: the wrapped network, that of the other checkout if there is one, and the bare one, in turn."""
    what, name, size_text, fusion = case.split(":")
    size, B, T = int(size_text), options.batch, options.frames
    generator = torch.Generator().manual_seed(options.seed)
    frames = torch.randn(B * T, 3, size, size, generator=generator).to(options.device)
    images = frames[:B].contiguous()
    labels = torch.randint(10, (B * T,), generator=generator).to(options.device)
    of = {"training": step_of, "inference": inference_of}[what]
    model = wrapped(None, name, fusion, size, options)
    calls = {"now": of(model, images, labels[:B])}
    if options.before is not None:
        calls["before"] = of(wrapped(options.before, name, fusion, size, options), images, labels[:B])
    calls["bare"] = of(timm.create_model(name, num_classes=10), frames, labels)
    calls["clip"] = lambda: model.to_video(images)
    clock = time.process_time if options.processor_time else time.perf_counter
    times = in_turn(calls, options.repeats, clock=clock)
    row: dict[str, Any] = {"what": what, "network": name, "size": size, "step": fusion, "frames": T}
    row |= ratio_of(times["now"], times["bare"])
    if options.before is not None:
        row |= ratio_of(times["before"], times["bare"], "before")
    target = GOALS.get((what, name, fusion))
    row |= {"target": target, "met": None if target is None else row["ratio"] <= target}
    row["clip_share"] = statistics.median(times["clip"]) / statistics.median(times["bare"])
    return row | {f"{side}_median_ms": 1e3 * statistics.median(values) for side, values in times.items()}


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], repeats=7)
    parser.add_argument("--cases", nargs="+", default=CASES, help="what:network:pixels:fusion")
    parser.add_argument("--batch", type=int, default=2, help="images B")
    parser.add_argument("--frames", type=int, default=8, help="frames T per image")
    parser.add_argument("--genotype", default="translate_x(0.03) > rotate(5) > scale(1.05)")
    parser.add_argument("--before", type=Path, default=None, help="a checkout of an earlier commit")
    parser.add_argument("--processor-time", action="store_true", help="count the processor's time, not the clock's")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.processor_time:  # as the commands do at their start
        from image2video.cli.allocator import keep_memory

        keep_memory()
    results = []
    for case in options.cases:
        results.append(measured(case, options))
        print(results[-1], flush=True)
    settings = {key: str(value) for key, value in vars(options).items() if key not in ("out", "before")}
    settings["before"] = options.before is not None
    columns = ["what", "network", "step", "ratio", "ratio_low", "ratio_high", "target", "met", "clip_share"]
    columns += ["before"] if options.before is not None else []
    write_result(options.out, "train_step", {"settings": settings, "results": results}, columns=columns)


if __name__ == "__main__":
    main()
