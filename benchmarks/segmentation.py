"""What a video segmentor costs against the plain one on the same B·T images, and what averaging full logits holds.

    python benchmarks/segmentation.py --threads 1 --out benchmarks/results/segmentation_cpu.json

Three lists: `results`, a training step of the stock PSPNet (R18, 19 classes, auxiliary head) with T frames of B images
against the plain segmentor's with B·T images and labels; `shares`, what bringing the logits back and averaging them
takes of that step at label resolution; `memory`, what averaging logits of a whole image holds, in volumes of its
logits. Targets: a step at most 1.2 times the plain one's, the share at most 3 %, at most 2 volumes beside the one that
the plain segmentor holds.

On a CPU with one thread the times are the processor's, which other programs touch less than the clock's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import mmseg
import torch
from harness import PairTiming, arguments, measure_pair, ratio_fields, timing_fields, write_result
from mmengine.logging import MMLogger
from mmseg.structures import SegDataSample
from mmseg_models import batch, build, read, shrunk
from torch import Tensor, nn

from image2video import Image2Video
from image2video.clip.image_to_video import clip_to_frames
from image2video.integrations.openmmlab import HeadOutputs
from image2video.training.live_memory import peak_bytes

STEP_TARGET, SHARE_TARGET, MEMORY_TARGET = 1.2, 0.03, 2.0
Measured = Callable[[Callable[[], object], Callable[[], object]], PairTiming]


def segmentor(path: str, crop: Sequence[int], video: dict[str, Any] | None, seed: int, device: str) -> Any:
    """A stock segmentor for images of `crop`, or the video segmentor of it, in training mode."""
    config = shrunk(read(path), tuple(crop))
    if video is not None:
        config.type, config.video = f"Video{config.type}", video
    torch.manual_seed(seed)
    model = build(config)
    model.init_weights()
    return model.to(device).train()


def training_step(model: Any, images: Tensor, found: list[SegDataSample]) -> Callable[[], None]:
    """Forward, losses of both heads, backward and an SGD update."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        losses = model.loss(images, found)
        sum(value for key, value in losses.items() if "loss" in key).backward()
        optimizer.step()

    return step


def step_row(wrapped: Callable[[], None], bare: Callable[[], None], device: str, timed: Measured) -> dict[str, Any]:
    """Time and peak memory of a step beside the plain segmentor's."""
    timing = timed(wrapped, bare)
    peaks = [peak_bytes(step, torch.device(device)) for step in (wrapped, bare)]
    return {
        "step": "PSPNet R18, GSF",
        **ratio_fields(timing),
        "target": STEP_TARGET,
        "met": timing.ratio <= STEP_TARGET,
        "peak_mib": round(peaks[0] / 2**20, 1),
        "bare_peak_mib": round(peaks[1] / 2**20, 1),
        "peak_ratio": peaks[0] / peaks[1],
        **timing_fields("wrapped", timing.first),
        **timing_fields("bare", timing.second),
    }


def share_rows(model: Any, images: Tensor, step: Callable[[], None], timed: Measured) -> list[dict[str, Any]]:
    """What both heads' logits cost from their own size to the average at label size, forward and backward.

    Resizing the frames' logits to the labels is what the plain segmentor does too, for as many images; the rest is
    unwarping and averaging.
    """
    size = (images.shape[2], images.shape[3])
    T = model.to_video.T
    heads = (model.decode_head, model.auxiliary_head)
    with torch.no_grad():
        frames = clip_to_frames(model.to_video(images))
        with model.video_fusion.frames(T):
            features = model.extract_feat(frames)
        small = [head.forward(features).detach() for head in heads]
    gradients = [torch.randn(len(images), maps.shape[1], *size, device=maps.device) for maps in small]
    every = [torch.randn(len(maps), maps.shape[1], *size, device=maps.device) for maps in small]
    video = HeadOutputs(model.to_video, [size] * len(images), size, size)

    def averaged() -> None:
        for maps, gradient in zip(small, gradients, strict=True):
            video.images(maps.requires_grad_()).backward(gradient)

    def resized() -> None:
        for maps, gradient in zip(small, every, strict=True):
            for t in range(T):
                one = maps.requires_grad_().unflatten(0, (-1, T))[:, t]
                nn.functional.interpolate(one, size, mode="bilinear").backward(gradient.unflatten(0, (-1, T))[:, t])

    # Resizing and unwarping are one pass over each frame, so the share of the way back is a difference.
    both, alone = timed(averaged, step), timed(resized, step)
    share = both.ratio - alone.ratio
    return [
        {
            "part": "resize to the labels, unwarp, average",
            **ratio_fields(both, "share"),
            **timing_fields("part", both.first),
        },
        {
            "part": "of these, resize to the labels",
            **ratio_fields(alone, "share"),
            **timing_fields("part", alone.first),
        },
        {"part": "unwarp and average", "share": share, "target": SHARE_TARGET, "met": share <= SHARE_TARGET},
    ]


def memory_rows(to_video: Image2Video, size: Sequence[int], classes: int, device: str) -> list[dict[str, Any]]:
    """The most that is held between the head's logits (1/8 of the image) and the image's, in volumes of the latter."""
    canvas = (size[0], size[1])
    T = to_video.T
    generator = torch.Generator().manual_seed(0)
    small = torch.randn(T, classes, canvas[0] // 8, canvas[1] // 8, generator=generator).to(device)
    volume = classes * canvas[0] * canvas[1] * 4
    enlarged = partial(nn.functional.interpolate, size=canvas, mode="bilinear")
    video = HeadOutputs(to_video, [canvas], canvas, canvas)
    calls: dict[str, Callable[[], Tensor]] = {
        "plain segmentor, one image": lambda: enlarged(small[:1]),
        "all frames at once": lambda: to_video.unwarped_mean(enlarged(small), canvas),
        "frame by frame": lambda: video.images(small),
    }
    rows, results = [], {}
    with torch.no_grad():
        for name, call in calls.items():
            results[name] = call()  # what is kept for sizes that come again is there before the measurement
            peak = peak_bytes(call, torch.device(device)) / volume
            rows.append({"way": name, "volumes": peak, "peak_mib": round(peak * volume / 2**20, 1)})
    for row in rows:
        row["extra_volumes"] = row["volumes"] - rows[0]["volumes"]
    error = (results["frame by frame"] - results["all frames at once"]).abs().max().item()
    rows[-1] |= {
        "target": MEMORY_TARGET,
        "met": rows[-1]["extra_volumes"] <= MEMORY_TARGET,
        "largest_difference": error,
    }
    return rows


def main() -> None:
    parser = arguments(__doc__ or "", repeats=7)
    parser.add_argument("--config", default="pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py")
    parser.add_argument("--batch", type=int, default=1, help="images B")
    parser.add_argument("--frames", type=int, default=5, help="frames T per image")
    parser.add_argument("--crop", type=int, nargs=2, default=[128, 256], help="height and width of the step's images")
    parser.add_argument("--image", type=int, nargs=2, default=[1024, 2048], help="those of the image of `memory`")
    parser.add_argument("--genotype", default="translate_x(0.02) > scale(1.05)")
    parser.add_argument("--fusion", default="gsf")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    MMLogger.get_instance("mmengine", log_level="ERROR")
    device, one_thread = options.device, options.device == "cpu" and options.threads == 1
    clock = time.process_time if one_thread else time.perf_counter
    timed = partial(measure_pair, repeats=options.repeats, clock=clock)
    video = {"genotype": options.genotype, "T": options.frames, "fusion": options.fusion}
    plain = segmentor(options.config, options.crop, None, options.seed, device)
    wrapped = segmentor(options.config, options.crop, video, options.seed, device)
    classes = plain.decode_head.num_classes
    images, found = batch(options.batch * options.frames, tuple(options.crop), classes, options.seed)
    images, found = images.to(device), [sample.to(device) for sample in found]
    few = images[: options.batch].contiguous()
    bare_step = training_step(plain, images, found)
    wrapped_step = training_step(wrapped, few, found[: options.batch])
    step = step_row(wrapped_step, bare_step, device, timed)
    shares = share_rows(wrapped, few, wrapped_step, timed)
    memory = memory_rows(wrapped.to_video, options.image, classes, device)
    settings = {key: str(value) for key, value in vars(options).items() if key != "out"}
    settings |= {"mmsegmentation": mmseg.__version__, "clock": "processor time" if one_thread else "wall time"}
    write_result(
        options.out,
        "segmentation",
        {"settings": settings, "results": [step], "shares": shares, "memory": memory},
        columns=["step", "ratio", "ratio_low", "ratio_high", "target", "peak_ratio", "met"],
    )


if __name__ == "__main__":
    main()
