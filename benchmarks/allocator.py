"""What a process gains that keeps freed memory, as the command line does: page faults and time of forward passes.

    python benchmarks/allocator.py --rounds 3 --out benchmarks/results/allocator.json

Each case runs in a process of its own, in turn with and without `keep_memory`, on one thread. `ratio` is the time with
it over the time without; the time is the processor's. The memory is the process's largest. `of_best` is the time with
it over that of the best batch size, goal 1.1; `of_contiguous` that of channels innermost over the usual layout.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import timm
import torch
from harness import write_result

from image2video.cli.allocator import keep_memory

CASES = tuple(
    (model, size, layout, batch)
    for model, size, batches in (
        ("tf_efficientnet_lite0", 160, (4, 16, 32, 128, 256)),
        ("mobilenetv3_small_100", 224, (4, 32, 128)),
        ("resnet18", 160, (4, 32, 128)),
    )
    for layout in ("contiguous", "channels_last")
    for batch in batches
)
IMAGES = 256
"""Images of a measurement, so that every batch size does the same work."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case is not None:
        print(json.dumps(measured(**json.loads(options.case))))
        return
    rows = []
    for model, size, layout, batch in CASES:
        found: dict[bool, list[dict[str, float]]] = {True: [], False: []}
        for _ in range(options.rounds):
            for keep in (False, True):
                case = {"model": model, "size": size, "layout": layout, "batch": batch, "keep": keep}
                found[keep].append(in_a_process(case))
        rows.append(row({"model": model, "size": size, "layout": layout, "batch": batch}, found))
        print(rows[-1], flush=True)
    compared(rows)
    columns = ("model", "size", "layout", "batch", "ms", "kept_ms", "ratio", "of_best", "of_contiguous", "faults")
    columns += ("kept_faults", "mib", "kept_mib")
    write_result(options.out, "allocator", {"rounds": options.rounds, "results": rows}, columns=columns)


def in_a_process(case: dict[str, Any]) -> dict[str, float]:
    """The measurement in a new process, whose allocator nobody has told anything."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, __file__, "--case", json.dumps(case)]
    run = subprocess.run(command, env=clean, capture_output=True, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


@torch.inference_mode()
def measured(model: str, size: int, layout: str, batch: int, keep: bool) -> dict[str, float]:
    """Milliseconds and page faults per image, and the largest memory of the process in MiB."""
    if keep and not keep_memory():
        raise SystemExit(
            "keep_memory does nothing here: another C library than glibc, or thresholds in the environment"
        )
    torch.set_num_threads(1)
    network = timm.create_model(model).eval()
    images = torch.rand(batch, 3, size, size)
    if layout == "channels_last":
        network, images = network.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    for _ in range(max(1, IMAGES // batch // 2)):
        network(images)
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
    for _ in range(IMAGES // batch):
        network(images)
    seconds, after = time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF)
    return {
        "ms": 1000 * seconds / IMAGES,
        "faults": (after.ru_minflt - before.ru_minflt) / IMAGES,
        "mib": after.ru_maxrss / 1024,
    }


def row(case: dict[str, Any], found: dict[bool, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians over the rounds, and the median of the ratios of neighbouring ones."""
    medians = {
        keep: {name: statistics.median(one[name] for one in runs) for name in runs[0]} for keep, runs in found.items()
    }
    ratios = [kept["ms"] / given["ms"] for given, kept in zip(found[False], found[True], strict=True)]
    return (
        case
        | medians[False]
        | {f"kept_{name}": value for name, value in medians[True].items()}
        | {"ratio": statistics.median(ratios)}
    )


def compared(rows: list[dict[str, Any]]) -> None:
    """Write into each row its time beside the best batch of its layout, and beside the other layout's."""
    of = {(one["model"], one["layout"], one["batch"]): one["kept_ms"] for one in rows}
    for one in rows:
        alike = [time for (model, layout, _), time in of.items() if (model, layout) == (one["model"], one["layout"])]
        contiguous = of[one["model"], "contiguous", one["batch"]]
        one |= {"of_best": one["kept_ms"] / min(alike), "of_contiguous": one["kept_ms"] / contiguous}


if __name__ == "__main__":
    main()
