"""How long the library and its command line take to start, each time in a fresh interpreter.

    python benchmarks/import_time.py --before ../older/.venv/bin/python --out benchmarks/results/import_time.json

The first row is `import image2video` after `import torch`; the others are commands, by the processor's time and in turn
with the interpreter of another environment, which has an older commit: `ratio` is the time now over the time there. On
a machine that nothing else uses, a command takes its processor's time.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import write_result

IMPORT = """
import time
import torch
start = time.process_time()
import image2video
print(time.process_time() - start)
"""
BARE = ("-c", "import timm")
"""What a command that builds a network of timm cannot do without; it brings torch and torchvision."""
COMMANDS = {
    "version": ("--version", 600),
    "help": ("--help", 600),
    "presets": ("presets", 600),
    "train": ("train --help", 600),
    "search": ("search --help", 600),
    "sites": ("sites resnet18", 4500),
}
"""The commands by a word, and the most milliseconds that each should take."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--before", type=Path, help="the interpreter of an environment with an older commit")
    parser.add_argument("--commands", nargs="+", default=list(COMMANDS), choices=list(COMMANDS), help="which of them")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = [imported(options.repeats)]
    if "sites" in options.commands:
        rows.append(row("import timm alone", BARE, None, None, options.repeats))
    for words, target in map(COMMANDS.__getitem__, options.commands):
        call = ("-m", "image2video.cli", *words.split())
        rows.append(row(f"image2video {words}", call, target, options.before, options.repeats))
    payload = {"settings": {"repeats": options.repeats}, "results": rows}
    write_result(options.out, "import_time", payload, columns=("what", "median_ms", "before_ms", "ratio", "target_ms"))


def imported(repeats: int) -> dict[str, Any]:
    """`import image2video` beside torch."""
    run = [sys.executable, "-c", IMPORT]
    seconds = [float(subprocess.run(run, capture_output=True, text=True, check=True).stdout) for _ in range(repeats)]
    return figures("import image2video, torch there", seconds, None, 100.0)


def row(what: str, words: tuple[str, ...], target: float | None, before: Path | None, repeats: int) -> dict[str, Any]:
    """One command, now and before."""
    now, then = [], []
    for _ in range(repeats):
        now.append(seconds(Path(sys.executable), words))
        if before is not None:
            then.append(seconds(before, words))
    return figures(what, now, then or None, target)


def figures(what: str, now: list[float], then: list[float] | None, target: float | None) -> dict[str, Any]:
    """Medians in milliseconds, and whether the target is met."""
    found: dict[str, Any] = {"what": what, "median_ms": 1e3 * statistics.median(now), "before_ms": None, "ratio": None}
    if then is not None:
        ratios = [a / b for a, b in zip(now, then, strict=True)]
        found |= {"before_ms": 1e3 * statistics.median(then), "ratio": statistics.median(ratios)}
    met = None if target is None else found["median_ms"] <= target
    return found | {"target_ms": target, "met": met, "all_ms": [1e3 * one for one in now]}


def seconds(python: Path, words: tuple[str, ...]) -> float:
    """The processor's time of one fresh interpreter, outside of any checkout."""
    before = _used()
    with tempfile.TemporaryDirectory() as elsewhere:
        subprocess.run([python, *words], cwd=elsewhere, capture_output=True, check=True)
    return _used() - before


def _used() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
