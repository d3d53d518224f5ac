"""What a clip costs that begins inside of a network: time against multiply-accumulates, and the memory of long clips.

    python benchmarks/clip_sites.py --threads 1 --out benchmarks/results/clip_sites.json

Both sides of a ratio take turns: the wrapped network and the bare one on the same B images, in inference and in a
training step (forward, cross-entropy, backward, SGD). Times are the processor's. `macs` is the ratio of the
multiply-accumulates, and `over` how many times as much the time grows: target 1.05 at most. `expansion` is the time
that making the frames at the site takes, as a share of the wrapped call: target 0.01 at most.

The last rows are training steps with T = 32 frames from the last stage on against T = 8 from the image: what is alive
at one time over what was there before, and what autograd keeps.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import timm
import torch
from harness import arguments, measure, measure_pair, ratio_fields, write_result
from live_memory import saved_bytes
from torch import Tensor, nn

from image2video import VideoWrap
from image2video.training.live_memory import peak_bytes

PLACES = {
    "resnet50": ("image", "layer2", "layer3", "layer4"),
    "tf_efficientnet_lite0": ("image", "blocks.2", "blocks.3", "blocks.5"),
}
LONG = {"resnet18": "layer4", "resnet50": "layer4"}
TARGETS = {"over": 1.05, "expansion": 0.01, ("resnet50", "layer3", 3): 2.2, ("resnet50", "layer4", 3): 1.5}
GENOTYPE = "translate_x(0.03) > rotate(5)"
MIB = 2**20


def main() -> None:
    parser = arguments(__doc__ or "", repeats=5)
    parser.add_argument("--models", nargs="*", default=list(PLACES))
    parser.add_argument("--long", nargs="*", default=list(LONG), help="networks of the long clips")
    parser.add_argument("--fusion", default="none", help="fusion of the wrapped network")
    parser.add_argument("--frames", type=int, nargs="*", default=[3, 5])
    parser.add_argument("--batch", type=int, default=4, help="images B")
    parser.add_argument("--size", type=int, default=160)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = [row for model in options.models for row in cost_rows(model, options)]
    memory = [row for model in options.long for row in memory_rows(model, options)]
    settings = {key: str(value) for key, value in vars(options).items() if key != "out"}
    payload = {"settings": settings, "results": results, "memory": memory}
    columns = ("model", "place", "T", "what", "macs", "ratio", "over", "expansion")
    write_result(options.out, "clip_sites", payload, columns=columns)
    for row in memory:
        print(row)


def cost_rows(name: str, options: Namespace) -> list[dict[str, Any]]:
    """Time of every place and T against the bare network."""
    images, labels = batch(options)
    rows = []
    for place in PLACES[name]:
        for T in options.frames:
            bare, model = network(name), wrapped(name, place, T, options)
            macs = float(T) if model.plan.clip_site is None else model.plan.clip_site.cost(T)
            for what, call in (("inference", inference), ("training step", training_step)):
                both = call(model, images, labels), call(bare, images, labels)
                timing = measure_pair(*both, options.repeats, clock=time.process_time)
                row = {"model": name, "place": place, "T": T, "what": what, "macs": macs, **ratio_fields(timing)}
                row["over"] = row["ratio"] / macs
                row["expansion"] = expansion(model, images, options.repeats) / timing.first.median_s
                row["target"] = TARGETS.get((name, place, T))
                rows.append(row)
                print(*row.values(), flush=True)
    return rows


def memory_rows(name: str, options: Namespace) -> list[dict[str, Any]]:
    """Memory of one training step: T frames from the image on, and from inside of the network on."""
    images, labels = batch(options)
    rows: list[dict[str, Any]] = []
    stages = ("image", "layer2", "layer3", "layer4")
    for place in stages:
        for T in (8, 16, 32):
            model = wrapped(name, place, T, options)
            step = training_step(model, images, labels)
            step()  # makes the optimiser's own state
            saved = saved_bytes(step, [*model.parameters(), *model.buffers(), images])
            seconds = measure(step, 2, warmup=0).median_s
            row = {"model": name, "place": place, "T": T, "saved_mib": saved / MIB}
            row["peak_mib"] = peak_bytes(step, images.device) / MIB
            rows.append(row | {"step_s": seconds})
            print(*rows[-1].values(), flush=True)
    reference = next(row for row in rows if row["place"] == "image" and row["T"] == 8)
    for row in rows:
        row["peak_ratio"] = row["peak_mib"] / reference["peak_mib"]
        row["saved_ratio"] = row["saved_mib"] / reference["saved_mib"]
        row["target"] = 1.0 if (row["place"], row["T"]) == (LONG[name], 32) else None
    return rows


def network(name: str) -> nn.Module:
    """A network with random weights."""
    torch.manual_seed(0)
    made: nn.Module = timm.create_model(name, num_classes=10)
    return made


def wrapped(name: str, place: str, T: int, options: Namespace) -> VideoWrap:
    """The network over T frames from a place on."""
    size = (3, options.size, options.size)
    return VideoWrap(network(name), options.fusion, genotype=GENOTYPE, T=T, clip_at=place, input_size=size)


def batch(options: Namespace) -> tuple[Tensor, Tensor]:
    """Images and labels."""
    generator = torch.Generator().manual_seed(options.seed)
    images = torch.randn(options.batch, 3, options.size, options.size, generator=generator)
    return images, torch.randint(10, (options.batch,), generator=generator)


def inference(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], object]:
    """A forward in eval mode."""

    def call() -> object:
        model.eval()
        with torch.inference_mode():
            return model(images)

    return call


def training_step(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], object]:
    """One step of SGD."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def call() -> None:
        model.train()
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return call


def expansion(model: VideoWrap, images: Tensor, repeats: int) -> float:
    """Seconds that the frames take: of the image, or of a map of the site's size."""
    site = model.plan.clip_site
    with torch.inference_mode():
        if site is None:
            return measure(lambda: model.to_video(images), repeats * 3).median_s
        maps = torch.randn(images.shape[0], site.channels, *site.map_size)
        size = (images.shape[2], images.shape[3])
        return measure(lambda: model.to_video.map_frames(maps, size), repeats * 3).median_s


if __name__ == "__main__":
    main()
