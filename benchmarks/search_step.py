"""A search step (τ step and weight step, cell included) against a training step on the same clip.

    python benchmarks/search_step.py --spaces affine5 autoaugment13 --out benchmarks/results/search_step_cpu.json

Float32 unless `--precision` says otherwise, B·T = 40. The training step has its clip ready made. Targets with
ResNet-18: at most 2.3 for affine5 and 4 for autoaugment13; for smaller networks `cell_share` says how much of the
search step is the cell's.
"""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from harness import arguments, measure, measure_pair, timing_fields, write_result
from torch import Tensor

from image2video.clip.colours import Colours
from image2video.integrations.timm_backbones import build
from image2video.search import Cell, SearchConfig, get_space
from image2video.search.optimise.bilevel import Bilevel, weight_optimizer
from image2video.search.score.network import build_network, predictions
from image2video.search.score.task import ClassificationTask

TARGETS = {"affine5": 2.3, "autoaugment13": 4.0}
CLASSES = 10
CASES = (("cifar_resnet18", 32), ("cifar_resnet18", 128), ("cifar_resnet8", 32), ("cifar_resnet8", 128))


def main() -> None:
    parser = arguments(__doc__ or "", repeats=9)
    parser.add_argument("--spaces", nargs="+", default=list(TARGETS), help="search spaces")
    parser.add_argument("--fusion", default="gsf", help="fusion of the network behind the cell")
    parser.add_argument("--frames", type=int, default=5, help="frames T of the clip")
    parser.add_argument("--batch", type=int, default=8, help="images per batch; the paper's B·T of 40 is 8 × 5")
    parser.add_argument("--precision", default="no", choices=("no", "bf16", "fp16"), help="mixed precision")
    parser.add_argument("--channels-last", action="store_true", help="memory layout of the network")
    parser.add_argument("--case", type=int, nargs="*", default=None, help=f"which of {CASES}, by position")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    chosen = CASES if options.case is None else [CASES[index] for index in options.case]
    results = [measure_case(space, model, size, options) for space in options.spaces for model, size in chosen]
    settings = {key: value for key, value in vars(options).items() if key not in ("out", "case")}
    write_result(
        options.out,
        "search_step",
        {"settings": {**settings, "targets": TARGETS}, "results": results},
        columns=(
            "space",
            "model",
            "size",
            "search_median_ms",
            "train_median_ms",
            "ratio",
            "ratio_low",
            "ratio_high",
            "cell_share",
        ),
    )


def measure_case(space: str, model: str, size: int, options: Any) -> dict[str, Any]:
    torch.manual_seed(options.seed)
    config = SearchConfig(T=options.frames, space=space)
    accelerator = Accelerator(cpu=options.device == "cpu", mixed_precision=options.precision)
    backbone = build(model, num_classes=CLASSES)
    colours = Colours.of(backbone)
    assert colours is not None
    network = build_network(backbone, options.fusion, residual=True, input_size=(3, size, size)).train()
    if options.channels_last:
        network.backbone.to(memory_format=torch.channels_last)
    prepared, optimizer = accelerator.prepare(network, weight_optimizer(network, config))
    cell = Cell(get_space(space), options.frames, generator=torch.Generator().manual_seed(0), colours=colours)
    task = ClassificationTask()
    steps = Bilevel(prepared, cell.to(accelerator.device), optimizer, accelerator, config, task)
    images, labels = batch(options, size, colours, accelerator.device)
    clip = steps.cell(images).detach()

    def search() -> None:
        steps.tau_step(images, labels)
        steps.weight_step(images, labels)

    def train() -> None:
        with accelerator.autocast():
            loss = task.loss(predictions(prepared, clip, task, lambda maps: maps), labels)
        optimizer.zero_grad()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(prepared.parameters(), config.grad_clip)
        optimizer.step()

    weight = torch.rand_like(clip)

    def cell_alone() -> None:
        """What the cell adds: forward and backward for τ, forward for the weights."""
        torch.autograd.grad((steps.cell(images) * weight).sum(), [steps.cell.tau])
        with torch.no_grad():
            steps.cell(images)

    pair = measure_pair(search, train, options.repeats)
    cell_timing = measure(cell_alone, options.repeats)
    target = TARGETS.get(space) if model == "cifar_resnet18" else None
    return {
        "space": space,
        "model": model,
        "size": size,
        "frames": options.batch * options.frames,
        **timing_fields("search", pair.first),
        **timing_fields("train", pair.second),
        **timing_fields("cell", cell_timing),
        "ratio": pair.ratio,
        "ratio_low": pair.ratio_low,
        "ratio_high": pair.ratio_high,
        "cell_share": cell_timing.median_s / pair.first.median_s,
        "target": target,
        "met": None if target is None else pair.ratio <= target,
    }


def batch(options: Any, size: int, colours: Colours, device: torch.device) -> tuple[Tensor, Tensor]:
    """Random images, normalised as the network takes them, and labels."""
    generator = torch.Generator().manual_seed(options.seed)
    images = colours.to_normalised(torch.rand(options.batch, 3, size, size, generator=generator))
    labels = torch.randint(CLASSES, (options.batch,), generator=generator)
    return images.to(device), labels.to(device)


if __name__ == "__main__":
    main()
