"""A sweep over families of networks: the smallest member of each, checked in a process of its own."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from harness import write_result

HERE = Path(__file__).resolve().parent
FUSIONS = ("tsm", "gsf")
IMAGES = 2


class Catalogue(ABC):
    """Families of networks, and how the smallest member of a family is found and checked.

    Attributes:
        name: the benchmark's name; `NAME.py` is its script, `results/NAME.json` holds its results.
        family: what the results call a family.
        member: what they call its smallest member.
        choice: the file with the smallest members.
        library: the library of the networks, and its version; `choice` holds for that version.
    """

    name: str
    family: str
    member: str
    choice: Path
    library: tuple[str, str]

    @abstractmethod
    def families(self) -> list[str]:
        """The names of all families."""

    @abstractmethod
    def smallest(self, family: str) -> dict[str, Any]:
        """The smallest member of a family by name, its `parameters`, and `of` how many it is."""

    @abstractmethod
    def check(self, member: str, options: argparse.Namespace) -> dict[str, Any]:
        """Check a member in this process."""

    @abstractmethod
    def crashed(self, member: str, reason: str) -> dict[str, Any]:
        """The result of a member whose process ended without one."""

    @abstractmethod
    def flags(self, member: str, options: argparse.Namespace) -> list[str]:
        """The options of the script for the process that checks a member."""

    @abstractmethod
    def payload(self, options: argparse.Namespace) -> dict[str, Any]:
        """What the result file says of all results."""

    @abstractmethod
    def page(self, document: dict[str, Any]) -> str:
        """The results as a Markdown page."""

    def checked(self, member: str, options: argparse.Namespace) -> dict[str, Any]:
        """Check a member in a process of its own."""
        return in_own_process(self, member, options)


def parser(catalogue: Catalogue, description: str | None, *, frames: int = 3, timeout: int) -> argparse.ArgumentParser:
    """The options that all sweeps share."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    families = f"{catalogue.family}s"
    found.add_argument(f"--{families}", dest="only", nargs="*", default=[], help=f"some {families} (default: all)")
    found.add_argument("--out", type=Path, default=HERE / "results" / f"{catalogue.name}.json")
    found.add_argument("--page", type=Path, help="write this Markdown page from --out, and run nothing")
    found.add_argument("--frames", type=int, default=frames)
    found.add_argument("--jobs", type=int, default=1, help="networks at a time")
    found.add_argument("--timeout", type=int, default=timeout, help="seconds for one network")
    found.add_argument("--again", action="store_true", help="also what --out holds already")
    found.add_argument("--choose", action="store_true", help="look for the smallest networks again, and run nothing")
    found.add_argument("--check", metavar=catalogue.member.upper(), help="check one, in this process, and print it")
    return found


def prepare(catalogue: Catalogue, options: argparse.Namespace) -> dict[str, Any] | None:
    """The members to sweep by family; None where the options asked for something else, which is done."""
    if options.check:
        print(json.dumps(catalogue.check(options.check, options)))
        return None
    if options.page:
        options.page.write_text(catalogue.page(json.loads(options.out.read_text())), encoding="utf-8")
        return None
    known = catalogue.families()
    unknown = sorted(set(options.only) - set(known))
    if unknown:
        raise SystemExit(f"{' '.join(catalogue.library)} has no {catalogue.family} {', '.join(unknown)}")
    chosen = choose(catalogue, options.only or known, again=options.choose)
    return None if options.choose else chosen


def choose(catalogue: Catalogue, families: Sequence[str], *, again: bool) -> dict[str, Any]:
    """The smallest members of families, from the file of the catalogue as far as it has them."""
    library, version = catalogue.library
    known: dict[str, Any] = {}
    if catalogue.choice.exists():
        document = json.loads(catalogue.choice.read_text())
        if document[library] == version:
            known = document[f"{catalogue.family}s"]
    for family in families:
        if family in known and not again:
            continue
        known[family] = catalogue.smallest(family)
        print(family, known[family], flush=True)
        partial = catalogue.choice.with_suffix(".part")
        document = {library: version, f"{catalogue.family}s": dict(sorted(known.items()))}
        partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, catalogue.choice)
    return {family: known[family] for family in families}


def sweep(catalogue: Catalogue, chosen: dict[str, Any], options: argparse.Namespace) -> None:
    """Check the families that are not in `--out` yet, and write after each."""
    done: dict[str, Any] = {}
    if options.out.exists():
        done = {result[catalogue.family]: result for result in json.loads(options.out.read_text())["results"]}
    # The small ones first: a sweep that is stopped has the most to show.
    by_size = sorted(chosen, key=lambda family: chosen[family]["parameters"] or 0)
    todo = [family for family in by_size if options.again or family not in done]
    with ThreadPoolExecutor(options.jobs) as pool:
        running = {}
        for family in todo:
            member = chosen[family][catalogue.member]
            running[pool.submit(catalogue.checked, member, options)] = family
        for number, future in enumerate(as_completed(running), 1):
            family = running[future]
            done[family] = {catalogue.family: family, **future.result()}
            print(f"{number}/{len(todo)} {family}:", *_words(done[family]), flush=True)
            payload = {**catalogue.payload(options), "results": [done[name] for name in sorted(done)]}
            with contextlib.redirect_stdout(io.StringIO()):
                write_result(options.out, catalogue.name, payload, columns=(catalogue.family, catalogue.member))


def _words(result: dict[str, Any]) -> list[str]:
    """A result in short: its status, and the number of sites or the reason by fusion."""
    words = [result.get("status", ""), result.get("reason", "")]
    for fusion in FUSIONS:
        if fusion in result:
            made = result[fusion]
            words.append(f"{fusion} {made.get('sites', made.get('reason'))}")
    return [word for word in words if word]


def in_own_process(catalogue: Catalogue, member: str, options: argparse.Namespace, *extra: str) -> dict[str, Any]:
    """Check a member in a process of its own, which bounds memory; a crash or a timeout is its result."""
    command = [sys.executable, str(HERE / f"{catalogue.name}.py"), "--check", member]
    command += ["--frames", str(options.frames), *catalogue.flags(member, options), *extra]
    # Freed activations go back to the system: kept for reuse in pieces, they filled 13 GiB where 3 were in use.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=options.timeout, env=environment)
    except subprocess.TimeoutExpired:
        return catalogue.crashed(member, f"not finished after {options.timeout} s")
    if run.returncode == 0:
        return json.loads(run.stdout.splitlines()[-1])
    lines = run.stderr.strip().splitlines() or [f"exit status {run.returncode}"]
    return catalogue.crashed(member, lines[-1][:400])


def site_cells(result: dict[str, Any]) -> list[str]:
    """The sites of both fusions, the rules that found them, with rows, unordered, and those left out."""
    made = [result[fusion] for fusion in FUSIONS]
    good = [one for one in made if "error" not in one]
    rules = sorted({rule for one in good for rule in one["rules"]})
    reasons = sorted({reason for one in good for reason in one["skip_reasons"]})

    def largest(key: str) -> int:
        return max((one[key] for one in good), default=0)

    left_out = f"{largest('skipped')} ({reasons[0]})" if largest("skipped") else "0"
    counts = [str(one.get("sites", "–")) for one in made]
    return [*counts, " + ".join(rules) or "–", str(largest("parts")), str(largest("unordered")), left_out]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table; "Nothing." where there are no rows."""
    if not rows:
        return ["Nothing."]
    lines = [" | ".join(cells) for cells in (head, *rows)]
    return [f"| {lines[0]} |", "|" + "---|" * len(head), *(f"| {line} |" for line in lines[1:])]
