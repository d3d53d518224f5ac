"""Every module of timm: the smallest architecture, wrapped with TSM and GSF, at its own input size.

    python benchmarks/zoo.py --out benchmarks/results/zoo.json            # all modules; continues where it stopped
    python benchmarks/zoo.py --modules resnet hiera --again               # some of them, anew
    python benchmarks/zoo.py --plan-only                                  # sites alone, no compute
    python benchmarks/zoo.py --table docs/zoo.md                          # the page, from the JSON

Each architecture runs in a process of its own (`zoo_check.py`), which bounds memory. Checked for each fusion: at least
one site; forward and backward at 2 images with finite gradients; output shapes of the bare model; `fusion="none"` is
the mean of the bare model over the frames; frames mix, clips do not; a bare checkpoint loads; unwrap leaves all as it
was. The choice of architectures is kept in `zoo_architectures.json` (`--choose` makes it again, in some minutes).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import timm
import torch
from harness import write_result
from zoo_check import FUSIONS

from image2video.errors import Image2VideoError
from image2video.inject import plan

HERE = Path(__file__).resolve().parent
CHOICE = HERE / "zoo_architectures.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", nargs="*", default=[], help="modules of timm (default: all)")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "zoo.json")
    parser.add_argument("--table", type=Path, help="write this Markdown page from --out, and run nothing")
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--short", action="store_true", help="for large ones: recompute in backward, no mixing check")
    parser.add_argument("--timeout", type=int, default=3600, help="seconds for one architecture")
    parser.add_argument("--again", action="store_true", help="also what --out holds already")
    parser.add_argument("--plan-only", action="store_true", help="print the numbers of sites, and write nothing")
    parser.add_argument("--choose", action="store_true", help="look for the smallest architectures again")
    options = parser.parse_args()
    unknown = sorted(set(options.modules) - set(timm.list_modules()))
    if unknown:
        parser.error(f"timm {timm.__version__} has no module {', '.join(unknown)}")
    if options.table:
        options.table.write_text(page(json.loads(options.out.read_text())), encoding="utf-8")
        return
    modules = options.modules or sorted(timm.list_modules())
    choice = choose(modules, again=options.choose)
    if options.plan_only:
        for module in modules:
            print(module, *plan_line(choice[module]["architecture"]), flush=True)
        return
    # The small ones first: a sweep that is stopped has the most to show.
    sweep(sorted(modules, key=lambda module: choice[module]["parameters"]), choice, options)


def sweep(modules: list[str], choice: dict[str, Any], options: argparse.Namespace) -> None:
    """Check the modules that are not in `--out` yet, and write after each."""
    done: dict[str, Any] = {}
    if options.out.exists():
        done = {result["module"]: result for result in json.loads(options.out.read_text())["results"]}
    for number, module in enumerate(modules, 1):
        if module in done and not options.again:
            continue
        result = {"module": module, **check(choice[module]["architecture"], options)}
        done[module] = result
        words = [f"{f} {result[f].get('sites', result[f].get('reason'))}" for f in FUSIONS]
        print(f"{number}/{len(modules)} {module} {result['architecture']}: {', '.join(words)}", flush=True)
        settings = {"frames": options.frames, "images": 2, "modules": len(timm.list_modules())}
        payload = {"settings": settings, "results": [done[name] for name in sorted(done)]}
        with contextlib.redirect_stdout(io.StringIO()):
            write_result(options.out, "zoo", payload, columns=("module", "architecture"))


def check(architecture: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run `zoo_check.py` for one architecture; a crash or a timeout is its result."""
    command = [sys.executable, str(HERE / "zoo_check.py"), architecture, "--frames", str(options.frames)]
    command += ["--short"] if options.short else []
    try:
        # Freed activations go back to the system: kept for reuse in pieces, they filled 13 GiB where 3 were in use.
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
        run = subprocess.run(command, capture_output=True, text=True, timeout=options.timeout, env=environment)
        if run.returncode == 0:
            return json.loads(run.stdout.splitlines()[-1])
        reason = (run.stderr.strip().splitlines() or [f"exit status {run.returncode}"])[-1][:400]
    except subprocess.TimeoutExpired:
        reason = f"not finished after {options.timeout} s"
    failure = {"error": "crash", "reason": reason}
    return {"architecture": architecture, **dict.fromkeys(FUSIONS, failure)}


def plan_line(architecture: str) -> list[str]:
    """The numbers of sites of one architecture, from a traced forward that computes nothing."""
    net = build_empty(architecture)
    words = [architecture]
    for fusion in FUSIONS:
        start = time.perf_counter()
        try:
            made = plan(net, fusion=fusion)
            words.append(f"{fusion} {len(made.sites)} ({len(made.skipped)} left out)")
        except Image2VideoError as error:
            words.append(f"{fusion} {type(error).__name__}: {error}")
        words.append(f"{time.perf_counter() - start:.1f} s")
    return words


def choose(modules: list[str], *, again: bool) -> dict[str, Any]:
    """The architecture with the fewest parameters of each module (the shortest name among equals)."""
    known: dict[str, Any] = {}
    if CHOICE.exists() and not again:
        document = json.loads(CHOICE.read_text())
        known = document["modules"] if document["timm"] == timm.__version__ else {}
    missing = [module for module in modules if module not in known]
    for module in missing:
        sizes = {name: parameters(name) for name in timm.list_models(module=module)}
        counted = {name: count for name, count in sizes.items() if count is not None}
        name = min(counted, key=lambda name: (counted[name], len(name), name))
        known[module] = {"architecture": name, "parameters": counted[name], "of": len(sizes)}
        print(f"{module}: {name}, {counted[name] / 1e6:.2f} M, of {len(sizes)}", flush=True)
        partial = CHOICE.with_suffix(".part")
        partial.write_text(
            json.dumps({"timm": timm.__version__, "modules": dict(sorted(known.items()))}, indent=1) + "\n"
        )
        os.replace(partial, CHOICE)
    return known


def parameters(name: str) -> int | None:
    """Count the parameters without allocating them; None for what cannot be built at all."""
    try:
        return sum(p.numel() for p in build_empty(name).parameters())
    except Exception as error:
        print(f"  {name} cannot be built: {type(error).__name__}: {str(error).splitlines()[0][:100]}", flush=True)
        return None


def build_empty(name: str) -> torch.nn.Module:
    """Build on the meta device, or for real where a constructor needs values."""
    try:
        with torch.device("meta"):
            return timm.create_model(name)
    except (NotImplementedError, RuntimeError):
        return timm.create_model(name)


def page(document: dict[str, Any]) -> str:
    """Write the results as a Markdown page."""
    results = document["results"]
    failed = [(r["module"], r["architecture"], f, r[f]) for r in results for f in FUSIONS if "error" in r[f]]
    works = sum(not any("error" in r[f] for f in FUSIONS) for r in results)
    versions, settings = document["versions"], document["settings"]
    lines = [
        "# Every family of timm",
        "",
        f"The smallest architecture (fewest parameters, own input size) of each of the {settings['modules']} modules "
        f"of timm {versions['timm']}, wrapped with TSM and with GSF: {works} of {len(results)} pass every check.",
        "",
        f"Made by `python benchmarks/zoo.py` on {document['date'][:10]} at commit {document['commit']} "
        f"(torch {versions['torch']}, {document['hardware']['processor']}), {settings['images']} images of "
        f"{settings['frames']} frames. Checked: forward and backward with finite gradients; the output shapes of the "
        'bare model; `fusion="none"` equals the mean of the bare model over the frames (1e-5 of the largest output); '
        "switched off, bit for bit the bare model; frames mix, and clips do not leak into each other (exactly 0); a "
        "bare checkpoint loads; `unwrap()` leaves every tensor and output bit for bit.",
        "",
        *_notes(results),
        "*Rows*: sites whose leading dimension holds several rows per frame (windows, patches). *Unordered*: sites "
        "whose positions are no row-major grid, so that the spatial part of GSF takes them as one row. *Left out*: "
        "places that the rule found and that cannot be used.",
        "",
        "## Not supported",
        "",
    ]
    if failed:
        lines += ["| module | architecture | fusion | reason |", "|---|---|---|---|"]
        lines += [f"| {m} | {a} | {f} | {r['error']}: {r['reason'].replace('|', '/')} |" for m, a, f, r in failed]
    else:
        lines += ["Nothing."]
    lines += ["", "## Sites", ""]
    lines += ["| module | architecture | input | TSM | GSF | rule | rows | unordered | left out |", "|" + "---|" * 9]
    lines += [_row(result) for result in results]
    return "\n".join(lines) + "\n"


def _notes(results: list[dict[str, Any]]) -> list[str]:
    """What was checked in part, and what was not."""
    modules = json.loads(CHOICE.read_text())["modules"]
    missing = sorted(set(modules) - {result["module"] for result in results})
    short = [r["module"] for r in results if any(r[f].get("mixed", 0) is None for f in FUSIONS)]
    lines = []
    if missing:
        named = ", ".join(f"{module} (`{modules[module]['architecture']}`)" for module in missing)
        lines += [f"Planned, with sites found by the trace, but not run in this sweep: {named}.", ""]
    if short:
        lines += [f"Checked without mixing and leaks, and with gradient checkpointing: {', '.join(short)}.", ""]
    return lines


def _row(result: dict[str, Any]) -> str:
    tsm, gsf = result["tsm"], result["gsf"]
    size = "×".join(str(n) for n in result.get("input_size", [])) or "–"
    both = [f for f in (tsm, gsf) if "error" not in f]
    rules = sorted({rule for f in both for rule in f["rules"]})
    left_out = max((f["skipped"] for f in both), default=0)
    reasons = sorted({reason for f in both for reason in f["skip_reasons"]})
    note = f"{left_out} ({reasons[0]})" if left_out else "0"
    counts = [str(f.get("sites", "–")) for f in (tsm, gsf)]
    cells = [result["module"], result["architecture"], size, *counts, " + ".join(rules) or "–"]
    cells += [str(max((f[key] for f in both), default=0)) for key in ("parts", "unordered")]
    return "| " + " | ".join([*cells, note]) + " |"


if __name__ == "__main__":
    main()
