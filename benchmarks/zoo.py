"""Every module of timm: the smallest architecture, wrapped with TSM and GSF, at its own input size.

    python benchmarks/zoo.py --out benchmarks/results/zoo.json            # all modules; continues where it stopped
    python benchmarks/zoo.py --modules resnet hiera --again               # some of them, anew
    python benchmarks/zoo.py --plan-only                                  # sites alone, no compute
    python benchmarks/zoo.py --page docs/zoo.md                           # the page, from the JSON

Each architecture runs in a process of its own, which bounds memory. Checked for each fusion: at least one site; forward
and backward at 2 images with finite gradients; output shapes of the bare model; `fusion="none"` is the mean of the bare
model over the frames; frames mix, clips do not; a bare checkpoint loads; unwrap leaves all as it was. The choice of
architectures is kept in `zoo_architectures.json` (`--choose` makes it again, in some minutes).
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import timm
import torch
from zoo_check import check
from zoo_driver import FUSIONS, HERE, IMAGES, Catalogue, parser, prepare, site_cells, sweep, table

from image2video.errors import Image2VideoError
from image2video.inject import plan


class TimmZoo(Catalogue):
    """The modules of timm, and the architecture with the fewest parameters of each (the shortest name among equals)."""

    name, family, member = "zoo", "module", "architecture"
    choice = HERE / "zoo_architectures.json"
    library = ("timm", timm.__version__)

    def families(self) -> list[str]:
        return sorted(timm.list_modules())

    def smallest(self, family: str) -> dict[str, Any]:
        sizes = {name: parameters(name) for name in timm.list_models(module=family)}
        counted = {name: count for name, count in sizes.items() if count is not None}
        name = min(counted, key=lambda name: (counted[name], len(name), name))
        return {"architecture": name, "parameters": counted[name], "of": len(sizes)}

    def check(self, member: str, options: argparse.Namespace) -> dict[str, Any]:
        return check(member, options.frames, short=options.short)

    def crashed(self, member: str, reason: str) -> dict[str, Any]:
        failure = {"error": "crash", "reason": reason}
        return {"architecture": member, **dict.fromkeys(FUSIONS, failure)}

    def flags(self, member: str, options: argparse.Namespace) -> list[str]:
        return ["--short"] if options.short else []

    def payload(self, options: argparse.Namespace) -> dict[str, Any]:
        return {"settings": {"frames": options.frames, "images": IMAGES, "modules": len(self.families())}}

    def page(self, document: dict[str, Any]) -> str:
        results = document["results"]
        failed = [(r, fusion) for r in results for fusion in FUSIONS if "error" in r[fusion]]
        works = len(results) - len({r["module"] for r, _ in failed})
        versions, settings = document["versions"], document["settings"]
        lines = [
            "# Every family of timm",
            "",
            f"The smallest architecture (fewest parameters, own input size) of each of the {settings['modules']} "
            f"modules of timm {versions['timm']}, wrapped with TSM and with GSF: {works} of {len(results)} pass every "
            "check.",
            "",
            f"Made by `python benchmarks/zoo.py` on {document['date'][:10]} at commit {document['commit']} "
            f"(torch {versions['torch']}, {document['hardware']['processor']}), {settings['images']} images of "
            f"{settings['frames']} frames. Checked: forward and backward with finite gradients; the output shapes of "
            'the bare model; `fusion="none"` equals the mean of the bare model over the frames (1e-5 of the largest '
            "output); switched off, bit for bit the bare model; frames mix, and clips do not leak into each other "
            "(exactly 0); a bare checkpoint loads; `unwrap()` leaves every tensor and output bit for bit.",
            "",
            *_notes(results),
            "*Rows*: sites whose leading dimension holds several rows per frame (windows, patches). *Unordered*: sites "
            "whose positions are no row-major grid, so that the spatial part of GSF takes them as one row. *Left out*: "
            "places that the rule found and that cannot be used.",
        ]
        reasons = [[r["module"], r["architecture"], fusion, _said(r[fusion])] for r, fusion in failed]
        lines += ["", "## Not supported", "", *table(["module", "architecture", "fusion", "reason"], reasons)]
        head = ["module", "architecture", "input", "TSM", "GSF", "rule", "rows", "unordered", "left out"]
        lines += ["", "## Sites", "", *table(head, [_row(result) for result in results])]
        return "\n".join(lines) + "\n"


def _notes(results: list[dict[str, Any]]) -> list[str]:
    """What was checked in part, and what was not."""
    modules = json.loads(TimmZoo.choice.read_text())["modules"]
    missing = sorted(set(modules) - {result["module"] for result in results})
    short = [r["module"] for r in results if any(r[fusion].get("mixed", 0) is None for fusion in FUSIONS)]
    lines = []
    if missing:
        named = ", ".join(f"{module} (`{modules[module]['architecture']}`)" for module in missing)
        lines += [f"Planned, with sites found by the trace, but not run in this sweep: {named}.", ""]
    if short:
        lines += [f"Checked without mixing and leaks, and with gradient checkpointing: {', '.join(short)}.", ""]
    return lines


def _row(result: dict[str, Any]) -> list[str]:
    size = "×".join(str(n) for n in result.get("input_size", [])) or "–"
    return [result["module"], result["architecture"], size, *site_cells(result)]


def _said(failure: dict[str, Any]) -> str:
    return f"{failure['error']}: {failure['reason'].replace('|', '/')}"


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


def main() -> None:
    catalogue = TimmZoo()
    given = parser(catalogue, __doc__, timeout=3600)
    given.add_argument("--short", action="store_true", help="for large ones: recompute in backward, no mixing check")
    given.add_argument("--plan-only", action="store_true", help="print the numbers of sites, and write nothing")
    options = given.parse_args()
    chosen = prepare(catalogue, options)
    if chosen is None:
        return
    if options.plan_only:
        for module, choice in chosen.items():
            print(module, *plan_line(choice["architecture"]), flush=True)
        return
    sweep(catalogue, chosen, options)


if __name__ == "__main__":
    main()
