"""How long a plan takes, the first of a process and a later one, beside the same plan of an earlier commit.

    git worktree add before 49f09ce
    python benchmarks/plan_time.py --before before --out benchmarks/results/plan_time.json

Every measurement is a fresh interpreter, in turn now and before, on one thread, of the processor's time. The later plan
is of another network of the same kind. `ratio` is the time now over the time before, goal 0.5; `forward_ms` is what one
image takes in the network itself. Python's garbage collector waits, as in `timeit`: when it looks through all objects
of torch, for 0.16 s, is chance.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import timm
import torch
from harness import ratio_of, write_result
from torch import nn

NETWORKS = (("mobilenetv3_small_100", 224), ("swin_base_patch4_window7_224", 224), ("resnet50", 224))
GOAL = 0.5
ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--before", type=Path, help="a checkout of an earlier commit")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case is not None:
        name, size = options.case
        print(json.dumps(measured(name, int(size))))
        return
    if options.before is None or not (options.before / "image2video").is_dir():
        raise SystemExit(f"--before is a checkout that holds image2video/, but it is {options.before}")
    rows = []
    for name, size in NETWORKS:
        found: dict[str, list[dict[str, float]]] = {"now": [], "before": []}
        for _ in range(options.repeats):
            found["now"].append(in_a_process(ROOT, name, size))
            found["before"].append(in_a_process(options.before, name, size))
        rows += [row(name, which, found) for which in ("first", "later")]
        print(*rows[-2:], sep="\n", flush=True)
    columns = (
        "network",
        "plan",
        "now_ms",
        "before_ms",
        "ratio",
        "ratio_low",
        "ratio_high",
        "goal",
        "met",
        "forward_ms",
    )
    write_result(options.out, "plan_time", {"settings": {"repeats": options.repeats}, "results": rows}, columns=columns)


def in_a_process(checkout: Path, name: str, size: int) -> dict[str, float]:
    """The measurement in a new process that imports image2video from a checkout."""
    command = [sys.executable, __file__, "--case", name, str(size)]
    where = os.environ | {"PYTHONPATH": str(checkout.resolve()), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=where, capture_output=True, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def measured(name: str, size: int) -> dict[str, float]:
    """Milliseconds of the first plan of this process, of the next one, and of a forward pass."""
    from image2video import plan

    torch.set_num_threads(1)
    gc.disable()

    def planned(network: nn.Module) -> float:
        began = time.process_time()
        plan(network, input_size=(3, size, size))
        return 1e3 * (time.process_time() - began)

    first, later = (planned(timm.create_model(name).eval()) for _ in range(2))
    network, image = timm.create_model(name).eval(), torch.rand(1, 3, size, size)
    with torch.inference_mode():
        network(image)
        began = time.process_time()
        network(image)
    return {"first": first, "later": later, "forward": 1e3 * (time.process_time() - began)}


def row(name: str, which: str, found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians of one network's first or later plan, and the ratio of neighbouring measurements."""
    now, before = ([one[which] for one in found[side]] for side in ("now", "before"))
    described: dict[str, Any] = {"network": name, "plan": which}
    described |= {"now_ms": statistics.median(now), "before_ms": statistics.median(before)} | ratio_of(now, before)
    described["forward_ms"] = statistics.median(one["forward"] for one in found["now"])
    return described | {"goal": GOAL, "met": described["ratio"] <= GOAL}


if __name__ == "__main__":
    main()
