"""A training step of a wrapped backbone against the bare one on the same B·T frames, and the clip's share of the step.

    python benchmarks/train_step.py --repeats 7 --out benchmarks/results/train_step.json

A step is forward, cross-entropy, backward and an SGD update, float32, on a CPU or an accelerator. The bare backbone
gets the B·T frames as images; the wrapped one makes its clip, fuses and averages. Targets: TSM at most 1.08, GSF at
most 1.25, making the clip at most 2 % of the step.
"""

from __future__ import annotations

from collections.abc import Callable

import timm
import torch
from harness import arguments, measure, measure_pair, ratio_fields, timing_fields, write_result
from torch import Tensor, nn

from image2video import Image2Video, VideoWrap

TARGETS = {"tsm": 1.08, "gsf": 1.25}


def step_of(model: nn.Module, images: Tensor, labels: Tensor, device: str) -> Callable[[], object]:
    """One training step as a function of nothing."""
    model.to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def main() -> None:
    parser = arguments(__doc__ or "", repeats=7)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--fusions", nargs="+", default=["none", "tsm", "gsm", "gsf"])
    parser.add_argument("--batch", type=int, default=2, help="images B")
    parser.add_argument("--frames", type=int, default=8, help="frames T per image")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--genotype", default="translate_x(0.03) > rotate(5) > scale(1.05)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(options.seed)
    B, T, size, device = options.batch, options.frames, options.size, options.device
    frames = torch.randn(B * T, 3, size, size, generator=generator).to(device)
    images = frames[:B].contiguous()
    labels = torch.randint(10, (B * T,), generator=generator).to(device)
    bare = step_of(timm.create_model(options.model, num_classes=10), frames, labels, device)
    results = []
    for fusion in options.fusions:
        backbone = timm.create_model(options.model, num_classes=10)
        model = VideoWrap(backbone, fusion=fusion, genotype=options.genotype, T=T, input_size=(3, size, size))
        wrapped = step_of(model, images, labels[:B], device)
        timing = measure_pair(wrapped, bare, options.repeats)
        results.append(
            {
                "step": fusion,
                **ratio_fields(timing),
                "target": TARGETS.get(fusion),
                **timing_fields("wrapped", timing.first),
                **timing_fields("bare", timing.second),
            }
        )
        model.unwrap()
    to_video = Image2Video(options.genotype, T=T)
    clip = measure(lambda: to_video(images), options.repeats * 5)
    share = clip.median_s / measure(bare, options.repeats).median_s
    results.append({"step": "clip alone", "ratio": share, "target": 0.02} | timing_fields("wrapped", clip))
    settings = {key: str(value) for key, value in vars(options).items() if key != "out"}
    write_result(
        options.out,
        "train_step",
        {"settings": settings, "results": results},
        columns=["step", "ratio", "ratio_low", "ratio_high", "target", "wrapped_median_ms", "bare_median_ms"],
    )


if __name__ == "__main__":
    main()
