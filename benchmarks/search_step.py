"""A search step (τ step and weight step, cell included) against a training step on the same clip.

    python benchmarks/search_step.py --spaces affine5 autoaugment13 --out benchmarks/results/search_step_cpu.json

Float32 unless `--precision` says otherwise, B·T = 40. The training step has its clip ready made. Targets with
ResNet-18: at most 2.3 for affine5 and 4 for autoaugment13; for smaller networks `cell_share` says how much of the
search step is the cell's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from harness import arguments, measure, measure_pair, ratio_fields, timing_fields, write_result
from torch import Tensor, nn

from image2video.clip.colours import Colours
from image2video.integrations.timm_backbones import build
from image2video.search import Cell, SearchConfig, get_space
from image2video.search.optimise.bilevel import Bilevel, weight_optimizer
from image2video.search.optimise.memory import checkpoint_activations_
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


@dataclass(frozen=True)
class Steps:
    """A network behind a cell, ready to be searched or trained on one batch.

    `prepared` is the `network` as accelerate has wrapped it.
    """

    config: SearchConfig
    accelerator: Accelerator
    network: nn.Module
    prepared: nn.Module
    optimizer: Any
    bilevel: Bilevel
    task: ClassificationTask
    images: Tensor
    labels: Tensor

    def train(self, clip: Tensor) -> None:
        """One training step on a clip."""
        with self.accelerator.autocast():
            loss = self.task.loss(predictions(self.prepared, clip, self.task, lambda maps: maps), self.labels)
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.prepared.parameters(), self.config.grad_clip)
        self.optimizer.step()


def build_steps(config: SearchConfig, model: str, size: int, options: Any, *, channels_last: bool = False) -> Steps:
    """The network `model`, and a batch of random images of `size` pixels, normalised as the network takes them."""
    torch.manual_seed(options.seed)
    accelerator = Accelerator(cpu=options.device == "cpu", mixed_precision=options.precision)
    backbone = build(model, num_classes=CLASSES)
    colours = Colours.of(backbone)
    assert colours is not None
    shape = (3, size, size)
    network = build_network(backbone, options.fusion, residual=True, input_size=shape).train()
    if channels_last:
        network.backbone.to(memory_format=torch.channels_last)
    if config.checkpoint_activations:
        checkpoint_activations_(network)
    prepared, optimizer = accelerator.prepare(network, weight_optimizer(network, config))
    space = get_space(config.space_name)
    cell = Cell(space, config.T, generator=torch.Generator().manual_seed(0), colours=colours)
    task = ClassificationTask()
    bilevel = Bilevel(prepared, cell.to(accelerator.device), optimizer, accelerator, config, task)
    generator = torch.Generator().manual_seed(options.seed)
    images = colours.to_normalised(torch.rand(options.batch, *shape, generator=generator)).to(accelerator.device)
    labels = torch.randint(CLASSES, (options.batch,), generator=generator).to(accelerator.device)
    return Steps(config, accelerator, network, prepared, optimizer, bilevel, task, images, labels)


def measure_case(space: str, model: str, size: int, options: Any) -> dict[str, Any]:
    """Time a search step beside a training step, and the cell alone."""
    config = SearchConfig(T=options.frames, space=space)
    steps = build_steps(config, model, size, options, channels_last=options.channels_last)
    bilevel, images, labels = steps.bilevel, steps.images, steps.labels
    clip = bilevel.cell(images).detach()
    weight = torch.rand_like(clip)

    def search() -> None:
        bilevel.tau_step(images, labels)
        bilevel.weight_step(images, labels)

    def cell_alone() -> None:
        """What the cell adds: forward and backward for τ, forward for the weights."""
        torch.autograd.grad((bilevel.cell(images) * weight).sum(), [bilevel.cell.tau])
        with torch.no_grad():
            bilevel.cell(images)

    pair = measure_pair(search, lambda: steps.train(clip), options.repeats)
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
        **ratio_fields(pair),
        "cell_share": cell_timing.median_s / pair.first.median_s,
        "target": target,
        "met": None if target is None else pair.ratio <= target,
    }


if __name__ == "__main__":
    main()
