"""Every model folder of mmsegmentation's configs: the smallest config, as a video segmentor, on small random images.

    python benchmarks/mmseg_zoo.py --out benchmarks/results/mmseg_zoo.json   # all folders; continues where it stopped
    python benchmarks/mmseg_zoo.py --folders segformer swin --again          # some of them, anew
    python benchmarks/mmseg_zoo.py --page docs/mmseg_zoo.md                  # the page, from the JSON

Each config runs in a process of its own, which bounds memory. Checked for TSM and GSF: at least one site; frames mix,
clips do not; switched off, bit for bit the bare backbone; a bare checkpoint loads; predictions have the bare shape;
with residual fusion and the identity genotype they are the bare ones (GSF); losses and gradients are finite, and every
fusion parameter has a gradient after two steps. A config that needs mmcv's compiled operators is run again with a
stand-in whose operators raise when they are called. The choice of configs, those with the fewest parameters, is kept in
`mmseg_zoo_configs.json` (`--choose` makes it again, in some minutes).
"""

from __future__ import annotations

import argparse
import logging
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

from mmseg_models import CONFIGS, folders, imports, parameters, read, stand_in_for_compiled_operators
from mmseg_zoo_check import check
from zoo_driver import HERE, IMAGES, Catalogue, in_own_process, parser, prepare, site_cells, sweep, table

CROPS = {"mobilenet_v3": 400}  # its head pools windows of 49 × 49 on the map of 1/8


def packages() -> dict[str, str]:
    """The distributions that give the packages of OpenMMLab, and their versions."""
    found = {}
    given = metadata.packages_distributions()
    for package in ("mmengine", "mmcv", "mmseg", "mmdet", "mmpretrain"):
        for name in given.get(package, ())[:1]:
            found[package] = f"{name} {metadata.version(name)}"
    return found


class MmsegZoo(Catalogue):
    """The model folders of mmsegmentation, and the config with the fewest parameters of each (the shortest name among
    equals)."""

    name, family, member = "mmseg_zoo", "folder", "config"
    choice = HERE / "mmseg_zoo_configs.json"
    library = ("mmsegmentation", packages()["mmseg"])

    def families(self) -> list[str]:
        return folders()

    def smallest(self, family: str) -> dict[str, Any]:
        quiet()
        stand_in_for_compiled_operators()  # configs are counted here; what runs is checked in processes of its own
        return smallest(family)

    def check(self, member: str, options: argparse.Namespace) -> dict[str, Any]:
        quiet()
        if options.stand_in:
            stand_in_for_compiled_operators()
        return check(member, options.frames, (options.crop, options.crop))

    def checked(self, member: str, options: argparse.Namespace) -> dict[str, Any]:
        result = in_own_process(self, member, options)
        if result["status"] not in ("needs compiled ops", "needs a package"):
            return result
        plain = {"plain_install": f"{result['error']}: {result['reason']}"}
        return in_own_process(self, member, options, "--stand-in") | plain

    def crashed(self, member: str, reason: str) -> dict[str, Any]:
        return {"config": member, "status": "fails", "error": "crash", "reason": reason}

    def flags(self, member: str, options: argparse.Namespace) -> list[str]:
        return ["--crop", str(CROPS.get(member.split("/")[0], options.crop))]

    def payload(self, options: argparse.Namespace) -> dict[str, Any]:
        settings = {"frames": options.frames, "images": IMAGES, "crop": options.crop, "folders": len(folders())}
        return {"settings": settings, "packages": packages()}

    def page(self, document: dict[str, Any]) -> str:
        results, settings, versions = document["results"], document["settings"], document["versions"]
        works = [r for r in results if r["status"] == "passes"]
        failed = [r for r in results if r["status"] != "passes"]
        named = ", ".join(document["packages"].values())
        lines = [
            "# Every model folder of mmsegmentation",
            "",
            f"The smallest config (fewest parameters) of each of the {settings['folders']} folders of models in the "
            f"configs of {document['packages']['mmseg']}, as a video segmentor with TSM and with GSF: {len(works)} of "
            f"{len(results)} pass every check.",
            "",
            f"Made by `python benchmarks/mmseg_zoo.py` on {document['date'][:10]} at commit {document['commit']} "
            f"(torch {versions['torch']}, {named}; {document['hardware']['processor']}), random weights, "
            f"{settings['images']} random images of {settings['crop']} × {settings['crop']} pixels, "
            f"{settings['frames']} frames. Checked: at least one site; frames mix, and clips do not leak into each "
            "other (exactly 0); switched off, bit for bit the bare backbone; a bare checkpoint loads; finite "
            "predictions of the bare shape; with residual GSF and the identity genotype the bare prediction (1e-4 of "
            "the largest logit); finite losses and gradients in two training steps, the second of which gives every "
            "fusion parameter a gradient.",
            "",
            "*Needs*: what the extra `[mmseg]` does not install. Where that is mmcv with its compiled operators, the "
            "check ran with a stand-in for them: the operators that have a form in Python work, the others raise when "
            "they are called. *Rows*: sites whose leading dimension holds several rows per frame (windows). "
            "*Unordered*: sites whose positions are no row-major grid, so that the spatial part of GSF takes them as "
            f"one row. *Left out*: places that the rule found and that cannot be used. {_exceptions()}",
            "",
            "## Not supported, or not checked",
            "",
        ]
        reasons = [[r["folder"], _file(r), r["status"], _said(r)] for r in failed]
        lines += table(["folder", "config", "status", "what is said"], reasons)
        head = ["folder", "config", "parameters", "backbone", "head", "TSM", "GSF", "rule", "rows", "unordered"]
        lines += ["", "## Sites", "", *table([*head, "left out", "needs"], [_row(result) for result in works])]
        return "\n".join(lines) + "\n"


def quiet() -> None:
    """Silence what mmsegmentation logs and warns of while it builds models."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")


def smallest(folder: str) -> dict[str, Any]:
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


def _exceptions() -> str:
    """What ran otherwise than the rest."""
    sizes = [f"`{folder}` ran at {crop} × {crop}, which its head needs" for folder, crop in CROPS.items()]
    return "; ".join(sizes) + ". `segnext`'s head draws at random in every forward: here the same for every row."


def _row(result: dict[str, Any]) -> list[str]:
    parameters = f"{result['parameters'] / 1e6:.1f} M"
    about = [result["folder"], _file(result), parameters, result["backbone"], result["head"]]
    return [*about, *site_cells(result), _needs(result)]


def _needs(result: dict[str, Any]) -> str:
    names = {"mmdet": "mmdetection", "mmpretrain": "mmpretrain"}
    operators = ["mmcv's operators"] if "plain_install" in result else []
    return ", ".join(operators + [names[package] for package in result["packages"]]) or "–"


def _file(result: dict[str, Any]) -> str:
    return f"`{Path(result['config']).stem}`"


def _said(result: dict[str, Any]) -> str:
    return f"{result['error']}: {result['reason']}".replace("|", "/")


def main() -> None:
    catalogue = MmsegZoo()
    given = parser(catalogue, __doc__, timeout=1800)
    given.add_argument("--crop", type=int, default=64, help="height and width of the images")
    given.add_argument("--stand-in", action="store_true", help="of --check: import mmcv.ops without its operators")
    options = given.parse_args()
    chosen = prepare(catalogue, options)
    if chosen is not None:
        sweep(catalogue, chosen, options)


if __name__ == "__main__":
    main()
