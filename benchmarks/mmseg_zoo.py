"""Every model folder of mmsegmentation's configs: the smallest config, as a video segmentor, on small random images.

    python benchmarks/mmseg_zoo.py --out benchmarks/results/mmseg_zoo.json   # all folders; continues where it stopped
    python benchmarks/mmseg_zoo.py --folders segformer swin --again          # some of them, anew
    python benchmarks/mmseg_zoo.py --page docs/mmseg_zoo.md                  # the page, from the JSON

Each config runs in a process of its own (`mmseg_zoo_check.py`), which bounds memory. Checked for TSM and GSF: at least
one site; frames mix, clips do not; switched off, bit for bit the bare backbone; a bare checkpoint loads; predictions
have the bare shape; with residual fusion and the identity genotype they are the bare ones (GSF); losses and gradients
are finite, and every fusion parameter has a gradient after two steps. A config that needs mmcv's compiled operators is
run again with a stand-in whose operators raise when they are called. The choice of configs, those with the fewest
parameters, is kept in `mmseg_zoo_configs.json` (`--choose` makes it again, in some minutes).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib import metadata
from pathlib import Path
from typing import Any

from harness import write_result
from mmseg_models import CONFIGS, folders, imports, parameters, read, stand_in_for_compiled_operators

HERE = Path(__file__).resolve().parent
CHOICE = HERE / "mmseg_zoo_configs.json"
FUSIONS = ("tsm", "gsf")
CROPS = {"mobilenet_v3": 400}  # its head pools windows of 49 × 49 on the map of 1/8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folders", nargs="*", default=[], help="folders of configs (default: all)")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "mmseg_zoo.json")
    parser.add_argument("--page", type=Path, help="write this Markdown page from --out, and run nothing")
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--crop", type=int, default=64, help="height and width of the images")
    parser.add_argument("--jobs", type=int, default=1, help="configs at a time")
    parser.add_argument("--timeout", type=int, default=1800, help="seconds for one config")
    parser.add_argument("--again", action="store_true", help="also what --out holds already")
    parser.add_argument("--choose", action="store_true", help="look for the smallest configs again, and run nothing")
    options = parser.parse_args()
    unknown = sorted(set(options.folders) - set(folders()))
    if unknown:
        parser.error(f"mmsegmentation has no configs {', '.join(unknown)}")
    if options.page:
        options.page.write_text(page(json.loads(options.out.read_text())), encoding="utf-8")
        return
    chosen = choose(options.folders or folders(), again=options.choose)
    if not options.choose:
        sweep(sorted(chosen, key=lambda folder: chosen[folder]["parameters"] or 0), chosen, options)


def sweep(names: list[str], chosen: dict[str, Any], options: argparse.Namespace) -> None:
    """Check the folders that are not in `--out` yet, and write after each."""
    done: dict[str, Any] = {}
    if options.out.exists():
        done = {result["folder"]: result for result in json.loads(options.out.read_text())["results"]}
    names = [name for name in names if options.again or name not in done]
    settings = {"frames": options.frames, "images": 2, "crop": options.crop, "folders": len(folders())}
    with ThreadPoolExecutor(options.jobs) as pool:
        running = {pool.submit(check, chosen[folder]["config"], options): folder for folder in names}
        for number, future in enumerate(as_completed(running), 1):
            folder = running[future]
            done[folder] = result = {"folder": folder, **future.result()}
            words = [f"{f} {result[f]['sites']}" for f in FUSIONS if f in result]
            print(f"{number}/{len(names)} {folder}: {result['status']}", *words, result.get("reason", ""), flush=True)
            payload = {"settings": settings, "packages": packages(), "results": [done[name] for name in sorted(done)]}
            with contextlib.redirect_stdout(io.StringIO()):
                write_result(options.out, "mmseg_zoo", payload, columns=("folder", "status"))


def check(config: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run `mmseg_zoo_check.py` for one config; where compiled operators are missing, with a stand-in for them."""
    result = _child(config, options, ())
    if result["status"] not in ("needs compiled ops", "needs a package"):
        return result
    plain = {"plain_install": f"{result['error']}: {result['reason']}"}
    return _child(config, options, ("--stand-in",)) | plain


def _child(config: str, options: argparse.Namespace, extra: tuple[str, ...]) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "mmseg_zoo_check.py"), config, *extra]
    crop = CROPS.get(config.split("/")[0], options.crop)
    command += ["--frames", str(options.frames), "--crop", str(crop)]
    try:
        # Freed activations go back to the system: kept for reuse in pieces, they fill more than is in use.
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
        run = subprocess.run(command, capture_output=True, text=True, timeout=options.timeout, env=environment)
        if run.returncode == 0:
            return json.loads(run.stdout.splitlines()[-1])
        reason = (run.stderr.strip().splitlines() or [f"exit status {run.returncode}"])[-1][:400]
    except subprocess.TimeoutExpired:
        reason = f"not finished after {options.timeout} s"
    return {"config": config, "status": "fails", "error": "crash", "reason": reason}


def choose(names: list[str], *, again: bool) -> dict[str, Any]:
    """The config with the fewest parameters of each folder (the shortest name among equals)."""
    known: dict[str, Any] = {}
    if CHOICE.exists():
        known = json.loads(CHOICE.read_text())["folders"]
    missing = [name for name in names if again or name not in known]
    if missing:
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
        stand_in_for_compiled_operators()  # configs are counted here; what runs is checked in processes of its own
    for name in missing:
        known[name] = _smallest(name)
        print(name, known[name], flush=True)
        partial = CHOICE.with_suffix(".part")
        document = {"mmsegmentation": packages()["mmseg"], "folders": dict(sorted(known.items()))}
        partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, CHOICE)
    return {name: known[name] for name in names}


def _smallest(folder: str) -> dict[str, Any]:
    """The smallest config of a folder; without a number of parameters where none can be built."""
    counted: dict[str, int] = {}
    found: list[tuple[int, int, str]] = []
    paths = sorted((CONFIGS / folder).glob("*.py"), key=lambda path: (len(path.name), path.name))
    for path in paths:
        try:
            model = read(path)
            if model is None:
                continue
            imports(model)
            parts = {k: v for k, v in model.items() if k not in ("data_preprocessor", "train_cfg", "test_cfg")}
            if repr(parts) not in counted:
                counted[repr(parts)] = parameters(model)
            found.append((counted[repr(parts)], len(path.name), path.name))
        except Exception as error:
            print(f"  {path.name} cannot be built: {type(error).__name__}: {str(error)[:100]}", flush=True)
            if isinstance(error, ModuleNotFoundError):
                break
    count, _, name = min(found, default=(None, 0, paths[0].name))
    return {"config": f"{folder}/{name}", "parameters": count, "of": len(paths)}


def packages() -> dict[str, str]:
    """The distributions that give the packages of OpenMMLab, and their versions."""
    found = {}
    given = metadata.packages_distributions()
    for package in ("mmengine", "mmcv", "mmseg", "mmdet", "mmpretrain"):
        for name in given.get(package, ())[:1]:
            found[package] = f"{name} {metadata.version(name)}"
    return found


def page(document: dict[str, Any]) -> str:
    """Write the results as a Markdown page."""
    results, settings, versions = document["results"], document["settings"], document["versions"]
    works = [r for r in results if r["status"] == "passes"]
    named = ", ".join(document["packages"].values())
    lines = [
        "# Every model folder of mmsegmentation",
        "",
        f"The smallest config (fewest parameters) of each of the {settings['folders']} folders of models in the "
        f"configs of {document['packages']['mmseg']}, as a video segmentor with TSM and with GSF: {len(works)} of "
        f"{len(results)} pass every check.",
        "",
        f"Made by `python benchmarks/mmseg_zoo.py` on {document['date'][:10]} at commit {document['commit']} (torch "
        f"{versions['torch']}, {named}; {document['hardware']['processor']}), random weights, {settings['images']} "
        f"random images of {settings['crop']} × {settings['crop']} pixels, {settings['frames']} frames. Checked: at "
        "least one site; frames mix, and clips do not leak into each other (exactly 0); switched off, bit for bit the "
        "bare backbone; a bare checkpoint loads; finite predictions of the bare shape; with residual GSF and the "
        "identity genotype the bare prediction (1e-4 of the largest logit); finite losses and gradients in two "
        "training steps, the second of which gives every fusion parameter a gradient.",
        "",
        "*Needs*: what the extra `[mmseg]` does not install. Where that is mmcv with its compiled operators, the check "
        "ran with a stand-in for them: the operators that have a form in Python work, the others raise when they are "
        "called. *Rows*: sites whose leading dimension holds several rows per frame (windows). *Unordered*: sites "
        "whose positions are no row-major grid, so that the spatial part of GSF takes them as one row. *Left out*: "
        f"places that the rule found and that cannot be used. {_exceptions()}",
        "",
        "## Not supported, or not checked",
        "",
    ]
    failed = [r for r in results if r["status"] != "passes"]
    if failed:
        lines += ["| folder | config | status | what is said |", "|---|---|---|---|"]
        lines += [f"| {r['folder']} | {_file(r)} | {r['status']} | {_said(r)} |" for r in failed]
    else:
        lines += ["Nothing."]
    head = "| folder | config | parameters | backbone | head | TSM | GSF | rule | rows | unordered | left out | needs |"
    lines += ["", "## Sites", "", head, "|" + "---|" * 12]
    lines += [_row(result) for result in works]
    return "\n".join(lines) + "\n"


def _exceptions() -> str:
    """What ran otherwise than the rest."""
    sizes = [f"`{folder}` ran at {crop} × {crop}, which its head needs" for folder, crop in CROPS.items()]
    return "; ".join(sizes) + ". `segnext`'s head draws at random in every forward: here the same for every row."


def _row(result: dict[str, Any]) -> str:
    both = [result[fusion] for fusion in FUSIONS]
    rules = sorted({rule for made in both for rule in made["rules"]})
    reasons = sorted({reason for made in both for reason in made["skip_reasons"]})
    left_out = max(made["skipped"] for made in both)
    cells = [result["folder"], _file(result), f"{result['parameters'] / 1e6:.1f} M", result["backbone"], result["head"]]
    cells += [str(made["sites"]) for made in both]
    cells += [" + ".join(rules), *(str(max(made[key] for made in both)) for key in ("parts", "unordered"))]
    cells += [f"{left_out} ({reasons[0]})" if left_out else "0", _needs(result)]
    return "| " + " | ".join(cells) + " |"


def _needs(result: dict[str, Any]) -> str:
    names = {"mmdet": "mmdetection", "mmpretrain": "mmpretrain"}
    operators = ["mmcv's operators"] if "plain_install" in result else []
    return ", ".join(operators + [names[package] for package in result["packages"]]) or "–"


def _file(result: dict[str, Any]) -> str:
    return f"`{Path(result['config']).stem}`"


def _said(result: dict[str, Any]) -> str:
    return f"{result['error']}: {result['reason']}".replace("|", "/")


if __name__ == "__main__":
    main()
