r"""What do video segmentors reach on CamVid, trained from scratch, beside the plain segmentor?

    python benchmarks/camvid.py --data data/camvid --work runs/camvid_cpu --scale cpu
    python benchmarks/camvid.py --data data/camvid --work runs/camvid --scale full
    python benchmarks/camvid_summary.py --work runs/camvid_cpu --out benchmarks/results/camvid_cpu.json

Every arm and seed is a process of its own, in which mmengine's Runner trains and then reads the test set once; nothing
is chosen by it. Finished runs are WORK/NETWORK_ARM_SEED/result.json: a benchmark that was stopped goes on without them.
"""

from __future__ import annotations

import math
import os
import resource
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from harness import commit, hardware, versions
from mmengine.config import Config
from mmengine.runner import Runner
from rich.console import Console

from image2video.integrations.openmmlab import CONFIGS
from image2video.reproduce.segment_metric import ExactIoU
from image2video.runs.folders import atomic_write_json

CAMVID = CONFIGS / "camvid"
SCALE_CPU = CAMVID / "_base_" / "scale_cpu.py"
NETWORKS = ("pspnet", "deeplabv3")
RESULT, PREDICTIONS = "result.json", "predictions"


@dataclass(frozen=True)
class Arm:
    """What is trained: a config of the folder, for some seeds, with `times` as many steps as the others."""

    title: str
    config: str = ""
    seeds: int = 1
    times: int = 1


T = 3
"""Frames of every clip in the configs, and so the steps of the bare network at equal compute."""
ARMS = {
    "bare": Arm("plain segmentor", seeds=3),
    "none": Arm("default clip, averaged", "none"),
    "replica": Arm("equal frames, GSF", "replica"),
    "random": Arm("random clip, GSF", "random"),
    "tsm": Arm("default clip, TSM", "tsm"),
    "gsf": Arm("default clip, GSF", "gsf"),
    "bare_long": Arm(f"plain segmentor, {T}× steps", times=T),
    "searched": Arm("searched clip, GSF", "searched", seeds=3),
}


def arm_config(name: str, seed: int, options: Namespace) -> Config:
    """The config of a run: the arm's, at the scale that was asked for, with the data and the folder of the run."""
    arm = ARMS[name]
    video = f"_{arm.config}-t{T}" if arm.config else ""
    config = Config.fromfile(CAMVID / f"{options.network}_r18-d8{video}_1xb8-20k_camvid-480x360.py")
    if options.scale == "cpu":
        config.merge_from_dict(Config.fromfile(SCALE_CPU).to_dict())
        config.val_cfg = config.val_dataloader = config.val_evaluator = None  # nothing is chosen on the way
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        if loader is not None:
            loader.dataset.data_root = str(options.data)
    _set_steps(config, arm.times * (options.steps or config.train_cfg.max_iters))
    config.work_dir = str(run_folder(options, name, seed))
    config.resume = True  # from the last checkpoint of a run that was stopped; from the start where there is none
    config.randomness = {"seed": seed}
    config.log_level = "WARNING"
    config.test_evaluator = {
        "type": ExactIoU.__name__,
        "iou_metrics": ["mIoU"],
        "output_dir": str(run_folder(options, name, seed) / PREDICTIONS),
        "prefix": "test",
    }
    return config


def _set_steps(config: Config, steps: int) -> None:
    """The schedule over `steps` steps, the warm-up as long as it was, but a tenth at most; one checkpoint at least."""
    warmup, decay = config.param_scheduler
    warmup.end = decay.begin = min(warmup.end, max(1, steps // 10))
    decay.end = steps
    config.train_cfg.max_iters = steps
    config.default_hooks.checkpoint.interval = min(config.default_hooks.checkpoint.interval, steps)


def run_folder(options: Namespace, name: str, seed: int) -> Path:
    """Where a run leaves its result."""
    return Path(options.work) / f"{options.network}_{name}_{seed}"


def run(name: str, seed: int, options: Namespace) -> None:
    """Train and test one arm with one seed, and write its result."""
    torch.set_num_threads(options.threads)
    config, folder = arm_config(name, seed, options), run_folder(options, name, seed)
    whole = not (folder / "last_checkpoint").is_file()
    runner = Runner.from_cfg(config)
    seconds = _seconds(runner.train)
    memory = _peak_bytes()
    metrics: dict[str, float] = {}
    test_seconds = _seconds(lambda: metrics.update(runner.test()))
    steps, batch = config.train_cfg.max_iters, config.train_dataloader.batch_size
    video = getattr(runner.model, "video_record", dict)()
    atomic_write_json(
        folder / RESULT,
        {
            "arm": name,
            "seed": seed,
            "network": options.network,
            "scale": options.scale,
            "video": video,
            "parameters": sum(p.numel() for p in runner.model.parameters()),
            "steps": steps,
            "images": steps * batch,
            "frames": steps * batch * video.get("T", 1),
            "train_seconds": round(seconds, 1) if whole else None,
            "test_seconds": round(test_seconds, 1),
            "peak_bytes": memory,
            "metrics": {k.removeprefix("test/"): None if math.isnan(v) else float(v) for k, v in metrics.items()},
            "commit": commit(),
            "hardware": hardware(),
            "versions": versions(),
        },
    )


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _peak_bytes() -> int:
    """The most memory that training took: of the accelerator, or of the process where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def planned(options: Namespace) -> list[tuple[str, int]]:
    """The runs in their order: the first seed of every arm, then the second …"""
    names = options.arms.split(",") if options.arms else list(ARMS)
    counts = {name: options.seeds or ARMS[name].seeds for name in names}
    return [(name, seed) for seed in range(max(counts.values())) for name in names if seed < counts[name]]


def parser() -> ArgumentParser:
    """The options of a benchmark."""
    found = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    found.add_argument("--data", required=True, help="the folder that holds images/ and labels/")
    found.add_argument("--work", required=True, help="where runs leave their results")
    found.add_argument("--scale", choices=("cpu", "full"), default="cpu", help="see configs/camvid/_base_")
    found.add_argument("--network", choices=NETWORKS, default=NETWORKS[0])
    found.add_argument("--arms", default="", help=f"some of {','.join(ARMS)}; all by default")
    found.add_argument("--seeds", type=int, default=0, help="seeds of every arm in place of its own number")
    found.add_argument("--steps", type=int, default=0, help="training steps in place of the scale's")
    found.add_argument("--threads", type=int, default=1, help="threads of torch on the CPU")
    found.add_argument("--only", default="", help="ARM:SEED, in this process")
    return found


def main() -> None:
    options = parser().parse_args()
    if options.only:
        name, _, seed = options.only.partition(":")
        run(name, int(seed), options)
        return
    console = Console()
    for name, seed in planned(options):
        if (run_folder(options, name, seed) / RESULT).is_file():
            continue
        console.print(f"{options.network} {name}, seed {seed}", highlight=False)
        command = [sys.executable, __file__, *sys.argv[1:], "--only", f"{name}:{seed}"]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": str(options.threads)})


if __name__ == "__main__":
    main()
