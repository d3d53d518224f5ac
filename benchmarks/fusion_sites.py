"""What a fusion costs at one site: on small maps in evaluation, and in a training step, against what it was and others.

    python benchmarks/fusion_sites.py --threads 1 --out benchmarks/results/fusion_sites_cpu.json
    python benchmarks/fusion_sites.py --threads 1 --calls --before CHECKOUT --out benchmarks/results/calls_cpu.json

Things take turns within one process; times are the processor's. `of_textbook` is the time over that of a version
written step by step on `(B, C, T, H, W)`, `of_before` over that of our own plain operations, which ran here before.
With `--calls` it is what a call of a tiny wrapped network takes beyond the bare one on ready frames: fixed, the clip
included, and for each site beside that.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from gsf import TextbookGSF
from harness import arguments, earlier, write_result
from harness import in_turn as turns
from torch import Tensor, nn

from image2video.cli.allocator import keep_memory
from image2video.fusion import GSF, GSM, TSM
from image2video.fusion.gsm_written import plain_gate_shift

MAPS = ((192, 4), (320, 5), (112, 10), (80, 14), (40, 28), (24, 56))
"""Channels and sides, as in EfficientNet-lite0 and MobileNetV3."""
GOALS = {4: 0.95, 5: 0.65, 10: 0.64}
STEPS = ((64, 56), (256, 28), (512, 14))


class TextbookTSM(nn.Module):
    """The temporal shift (Lin, Gan, Han, ICCV 2019), by assignment to slices."""

    def forward(self, frames: Tensor, T: int) -> Tensor:
        """Shift frames `(B·T, C, H, W)`."""
        clip = frames.view(-1, T, *frames.shape[1:])
        fold = frames.shape[1] // 8
        out = torch.zeros_like(clip)
        out[:, :-1, :fold] = clip[:, 1:, :fold]
        out[:, 1:, fold : 2 * fold] = clip[:, :-1, fold : 2 * fold]
        out[:, :, 2 * fold :] = clip[:, :, 2 * fold :]
        return out.view_as(frames)


CALL_GOALS = {"fixed": 300.0, "tsm": 25.0, "gsm": 100.0, "gsf": 250.0}
"""Microseconds: of a call without fusion, and of each site."""
TINY_SITES = 4


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], repeats=100)
    parser.add_argument("--calls", action="store_true", help="measure calls of a tiny network")
    parser.add_argument("--before", type=Path, default=None, help="a checkout of an earlier commit, for --calls")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    kept = keep_memory()
    torch.manual_seed(options.seed)
    if options.calls:
        settings = {"repeats": options.repeats, "frames": 3, "sites": TINY_SITES, "memory_kept": kept}
        write_result(options.out, "fusion_sites", {"settings": settings, "results": tiny_calls(options)})
        return
    rows = [inference(name, *size, options.repeats) for name in ("tsm", "gsm", "gsf") for size in MAPS]
    rows += [training(*size, max(8, options.repeats // 8)) for size in STEPS]
    settings = {"repeats": options.repeats, "seed": options.seed, "frames": 3, "memory_kept": kept}
    write_result(options.out, "fusion_sites", {"settings": settings, "results": rows})


def tiny() -> nn.Module:
    """A network of a few small convolutions, the last ones of which are the sites."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, stride=4)]
    for _ in range(TINY_SITES):
        layers += [nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)).eval()


@torch.inference_mode()
def tiny_calls(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Microseconds of a call beside the network, and of each site, here and in the other checkout."""
    image, frames = torch.randn(1, 3, 16, 16), torch.randn(3, 3, 16, 16)
    bare = tiny()
    calls: dict[str, Callable[[], object]] = {"bare": lambda: bare(frames)}
    sites = [str(2 * index + 1) for index in range(TINY_SITES)]
    sides = {"now": None} if options.before is None else {"now": None, "before": options.before}
    for side, checkout in sides.items():
        for fusion in ("none", "tsm", "gsm", "gsf"):
            with earlier(checkout):
                from image2video import VideoWrap

                chosen = None if fusion == "none" else sites
                model = VideoWrap(tiny(), fusion=fusion, T=3, input_size=(3, 16, 16), sites=chosen).eval()
            calls[f"{side} {fusion}"] = partial(model, image)
    times = turns(calls, 10 * options.repeats, warmup=20, clock=time.process_time)
    # Of the fastest fiftieth the slowest: other programs of the machine only ever add.
    micro = {name: 1e6 * statistics.quantiles(values, n=50)[0] for name, values in times.items()}
    rows = []
    for what, goal in CALL_GOALS.items():
        row: dict[str, Any] = {"what": what if what == "fixed" else f"{what}, a site"}
        for side in sides:
            none = micro[f"{side} none"]
            row[f"{side}_us"] = (
                none - micro["bare"] if what == "fixed" else (micro[f"{side} {what}"] - none) / TINY_SITES
            )
        rows.append(row | {"goal_us": goal, "met": row["now_us"] <= goal})
    return rows


def never(*_: object) -> bool:
    """What stands for `is_served`; a mock's own calls would take longer than what is measured."""
    return False


@contextmanager
def as_before() -> Iterator[None]:
    """Our own plain ways, which gradients and graphs take."""
    with (
        mock.patch("image2video.fusion.gsf.is_served", new=never),
        mock.patch("image2video.fusion.gsm.is_served", new=never),
        mock.patch("image2video.fusion.tsm.is_plain", new=never),
        mock.patch("image2video.fusion.gsm.written_gate_shift", plain_gate_shift),
    ):
        yield


@torch.inference_mode()
def inference(name: str, channels: int, size: int, repeats: int) -> dict[str, Any]:
    """One site with three frames of one image, in evaluation."""
    module = {"tsm": TSM, "gsm": GSM, "gsf": GSF}[name](channels).eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.1)
    frames = torch.randn(3, channels, size, size)
    calls: dict[str, Callable[[], Tensor]] = {"now": lambda: module(frames, 3), "before": lambda: module(frames, 3)}
    if name != "gsm":
        textbook = TextbookTSM() if name == "tsm" else TextbookGSF(channels).eval()
        textbook.load_state_dict(module.state_dict())
        calls["textbook"] = lambda: textbook(frames, 3)
    times = in_turn(calls, repeats)
    with as_before():
        error = (module(frames, 3) - calls["now"]()).abs().max().item()
    error = max(error, *((call() - module(frames, 3)).abs().max().item() for call in calls.values()))
    row = {"fusion": name, "what": "evaluation", "map": f"{channels}x{size}x{size}"} | shares(times)
    goal = GOALS.get(size) if name == "gsf" else None
    met = None if goal is None else row["of_textbook"] <= goal
    return row | {"goal": goal, "met": met, "largest_difference": error}


def training(channels: int, size: int, repeats: int) -> dict[str, Any]:
    """Forward and backward of GSM on 16 frames, T = 8."""
    module = GSM(channels, residual=True)
    frames = torch.randn(16, channels, size, size, requires_grad=True)
    upstream = torch.randn_like(frames)

    def step() -> None:
        module.zero_grad()
        frames.grad = None
        module(frames, 8).backward(upstream)

    times = in_turn({"now": step, "before": step}, repeats)
    return {"fusion": "gsm", "what": "training step", "map": f"{channels}x{size}x{size}"} | shares(times)


def in_turn(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Processor seconds of each call, round by round; patching and its like are not timed."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for index in range(repeats + 3):
        for name, call in calls.items():
            if name == "before":
                with as_before():
                    start = time.process_time()
                    call()
                    end = time.process_time()
            else:
                start = time.process_time()
                call()
                end = time.process_time()
            if index >= 3:
                times[name].append(end - start)
    return times


def shares(times: dict[str, list[float]]) -> dict[str, float | None]:
    """Medians in microseconds, and the medians and quartiles of the ratios within a round."""
    row: dict[str, float | None] = {f"{name}_us": 1e6 * statistics.median(values) for name, values in times.items()}
    for other in ("before", "textbook"):
        if other in times:
            ratios = [a / b for a, b in zip(times["now"], times[other], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
            row |= {f"of_{other}": middle, f"of_{other}_low": low, f"of_{other}_high": high}
    return row


if __name__ == "__main__":
    main()
