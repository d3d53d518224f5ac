"""What every benchmark shares: alternating measurements, the machine's description, JSON results and a table."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

SCHEMA = 1


@dataclass(frozen=True)
class Timing:
    """Seconds per call over the repeats: median, quartiles and extremes."""

    median_s: float
    low_s: float
    high_s: float
    least_s: float
    most_s: float
    repeats: int


@dataclass(frozen=True)
class PairTiming:
    """Two functions measured in turn, and how many times as long the first takes as the second.

    `ratio` is the median of the ratios of neighbouring runs, which a machine's drift touches least; `ratio_low` and
    `ratio_high` are their quartiles.
    """

    first: Timing
    second: Timing
    ratio: float
    ratio_low: float
    ratio_high: float


def measure(function: Callable[[], object], repeats: int, *, warmup: int = 2) -> Timing:
    """Time one function; on an accelerator every run is synchronised."""
    for _ in range(warmup):
        function()
    return _summary([_seconds(function, time.perf_counter) for _ in range(repeats)])


def measure_pair(
    first: Callable[[], object],
    second: Callable[[], object],
    repeats: int,
    *,
    warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> PairTiming:
    """Time two functions in alternating runs; each pair starts with the other one.

    `clock=time.process_time` counts the processor's time, which other programs on the machine touch less.
    """
    for _ in range(warmup):
        first()
        second()
    firsts, seconds = [], []
    for index in range(repeats):
        # A machine that slows down or speeds up would favour the function that is always first.
        if index % 2:
            seconds.append(_seconds(second, clock))
            firsts.append(_seconds(first, clock))
        else:
            firsts.append(_seconds(first, clock))
            seconds.append(_seconds(second, clock))
    ratios = [a / b for a, b in zip(firsts, seconds, strict=True)]
    low, high = _quartiles(ratios)
    return PairTiming(_summary(firsts), _summary(seconds), statistics.median(ratios), low, high)


def in_turn(
    calls: Mapping[str, Callable[[], object]], repeats: int, *, warmup: int = 2, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of several functions, round by round; each round begins with another one."""
    names = list(calls)
    times: dict[str, list[float]] = {name: [] for name in names}
    for index in range(warmup + repeats):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            seconds = _seconds(calls[name], clock)
            if index >= warmup:
                times[name].append(seconds)
    return times


def ratio_of(first: Sequence[float], second: Sequence[float], name: str = "ratio") -> dict[str, float]:
    """The median of the ratios within a round, and their quartiles, as a result's fields."""
    ratios = [a / b for a, b in zip(first, second, strict=True)]
    low, high = _quartiles(ratios)
    return {name: statistics.median(ratios), f"{name}_low": low, f"{name}_high": high}


@contextmanager
def earlier(checkout: Path | None) -> Iterator[None]:
    """Import image2video from another checkout within the block; None imports this one.

    What was imported here stays what it is, beside it: objects of both run in one process, in turn.
    """
    if checkout is None:
        yield
        return
    if not (checkout / "image2video").is_dir():
        raise SystemExit(f"{checkout} holds no image2video/; make one by: git worktree add {checkout} COMMIT")

    def ours() -> dict[str, ModuleType]:
        return {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "image2video"}

    kept = ours()
    for name in kept:
        del sys.modules[name]
    sys.path.insert(0, str(checkout))
    try:
        yield
    finally:
        sys.path.remove(str(checkout))
        for name in ours():
            del sys.modules[name]
        sys.modules.update(kept)


def write_result(
    path: Path | str | None,
    name: str,
    payload: Mapping[str, Any],
    *,
    columns: Sequence[str] = (),
) -> dict[str, Any]:
    """Print the results as a table and write them as JSON (to nowhere where `path` is None).

    Args:
        path: the JSON file; its folder is made.
        name: name of the benchmark.
        payload: `settings`, a mapping, and `results`, a list of mappings; further keys are kept.
        columns: keys of the results that the table shows; all that are plain values by default.

    Returns:
        The document: schema, benchmark, commit, date, hardware, versions, and the payload.
    """
    document = {
        "schema": SCHEMA,
        "benchmark": name,
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": versions(),
        **payload,
    }
    _print_table(name, document["results"], columns)
    if path is not None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        # A benchmark that is killed while it writes leaves the earlier results whole.
        partial = target.with_suffix(".part")
        partial.write_text(json.dumps(document, indent=2, sort_keys=False) + "\n", encoding="utf-8")
        os.replace(partial, target)
        Console().print(f"results: {target}")
    return document


def timing_fields(prefix: str, timing: Timing) -> dict[str, float]:
    """Flatten a timing into a result's fields, in milliseconds."""
    return {
        f"{prefix}_{key.removesuffix('_s')}_ms": round(value * 1e3, 4)
        for key, value in asdict(timing).items()
        if key.endswith("_s")
    }


def ratio_fields(timing: PairTiming, name: str = "ratio") -> dict[str, float]:
    """The ratio of a pair and its quartiles as a result's fields."""
    return {name: timing.ratio, f"{name}_low": timing.ratio_low, f"{name}_high": timing.ratio_high}


def hardware() -> dict[str, Any]:
    """Describe the machine: processor, cores, threads, and the accelerator if there is one."""
    described: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if torch.cuda.is_available():
        described["accelerator"] = torch.cuda.get_device_name()
    elif torch.backends.mps.is_available():
        described["accelerator"] = "MPS"
    return described


def versions() -> dict[str, str]:
    """Return the versions that a figure depends on."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("image2video", "timm", "torchvision"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Return the commit of the checkout, with `+` where it has changes; `unknown` outside one."""
    root = Path(__file__).resolve().parent.parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def arguments(description: str, *, repeats: int = 15) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark takes: --device, --threads, --repeats, --seed, --out."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=default, help="where to measure")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch on the CPU")
    parser.add_argument("--repeats", type=int, default=repeats, help="measured runs of each side")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and data")
    parser.add_argument("--out", type=Path, default=None, help="write the results to this JSON file")
    return parser


def synchronise() -> None:
    """Wait for the accelerator, where there is one."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def _seconds(function: Callable[[], object], clock: Callable[[], float]) -> float:
    # Calls on an accelerator return before they are done.
    synchronise()
    start = clock()
    function()
    synchronise()
    return clock() - start


def _summary(seconds: Sequence[float]) -> Timing:
    low, high = _quartiles(seconds)
    return Timing(statistics.median(seconds), low, high, min(seconds), max(seconds), len(seconds))


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _print_table(name: str, results: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    keys = list(columns) or [key for key in results[0] if not isinstance(results[0][key], dict | list)]
    table = Table(title=name)
    for key in keys:
        table.add_column(key, justify="right")
    for result in results:
        table.add_row(*(_cell(result.get(key, "")) for key in keys))
    Console().print(table)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
