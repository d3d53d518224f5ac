r"""Collects the runs of `camvid.py` into one result file and draws predictions side by side.

    python benchmarks/camvid_summary.py --work runs/camvid_cpu --search runs/camvid_search --out camvid_cpu.json
    python benchmarks/camvid_summary.py --work runs/camvid_cpu --data data/camvid --figure docs/figures/camvid

The figure shows test frames that are evenly spaced over the split, not chosen by what they show.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from camvid import ARMS, NETWORKS, PREDICTIONS, RESULT
from harness import write_result
from PIL import Image
from rich.console import Console

from image2video import Genotype
from image2video.errors import MissingError
from image2video.integrations.openmmlab import CamVidDataset
from image2video.report import SegmentedImage, mean_interval, paired_difference, save_figure, segmentation_figure
from image2video.runs.folders import read_json

CLASSES = CamVidDataset.METAINFO["classes"]
COLUMNS = ("arm", "n", "mIoU", "half_width_95", "pixel_accuracy", "steps", "images", "frames", "train_seconds")
UNLABELLED, IGNORED = 11, 255
CONTRASTS = (
    ("at equal steps", "searched", "bare"),
    ("at equal compute", "searched", "bare_long"),
    ("fusion instead of averaging", "gsf", "none"),
    ("a moving clip instead of copies", "gsf", "replica"),
    ("a search instead of a random draw", "searched", "random"),
    ("a search instead of the default", "searched", "gsf"),
    ("GSF instead of TSM", "gsf", "tsm"),
)


def gathered(options: Namespace) -> dict[str, list[dict[str, Any]]]:
    """The finished runs by arm, in the order of the seeds.

    Raises `MissingError` where there is none.
    """
    found = {}
    for name in ARMS:
        folders = sorted(Path(options.work).glob(f"{options.network}_{name}_*/{RESULT}"))
        runs = [run for run in map(read_json, folders) if run["arm"] == name]
        if runs:
            found[name] = sorted(runs, key=lambda run: run["seed"])
    if not found:
        raise MissingError(f"no {options.network}_ARM_SEED/{RESULT} in {options.work}; camvid.py writes them")
    return found


def arm_row(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of an arm: means over its seeds, the half width of a 95 % interval where there are several."""
    first = runs[0]
    miou = mean_interval([run["metrics"]["mIoU"] for run in runs])
    times = [run["train_seconds"] for run in runs]
    return {
        "arm": name,
        "title": ARMS[name].title,
        "genotype": first["video"].get("genotype", "–"),
        "fusion": first["video"].get("fusion", {}).get("name", "–"),
        "n": miou.n,
        "mIoU": round(miou.mean, 2),
        "half_width_95": None if miou.n == 1 else round(miou.half_width, 2),
        "pixel_accuracy": round(_mean(runs, "aAcc"), 2),
        "by_seed": {str(run["seed"]): round(run["metrics"]["mIoU"], 2) for run in runs},
        **{key: first[key] for key in ("steps", "images", "frames", "parameters")},
        "train_seconds": None if None in times else round(sum(times) / len(times)),
        "peak_mb": round(max(run["peak_bytes"] for run in runs) / 2**20),
    }


def difference_rows(found: dict[str, list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """The differences in mIoU of two arms on the seeds that both have, in points; intervals need several seeds."""
    for question, a, b in CONTRASTS:
        one, other = ({run["seed"]: run["metrics"]["mIoU"] for run in found.get(name, ())} for name in (a, b))
        gap = paired_difference(one, other)
        if gap is None:
            continue
        outcome = ("ahead" if gap.mean > 0 else "behind") if gap.decided else "undecided"
        yield {
            "question": question,
            "a": a,
            "b": b,
            "difference": round(gap.mean, 2),
            "half_width_95": None if gap.n == 1 else round(gap.half_width, 2),
            "n": gap.n,
            "a_is": "one seed" if gap.n == 1 else outcome,
        }


def search_record(folder: str) -> dict[str, Any]:
    """How the searched genotype was found: what it is, its held-out mIoU, how much was decided, what it cost."""
    scores, run = read_json(Path(folder) / "scores.json"), read_json(Path(folder) / "run.json")
    genotype = Genotype.load(Path(folder) / "genotype.json")
    return {
        "genotype": str(genotype),
        "provenance": dict(genotype.provenance or {}),
        "decided": scores["decidedness"],
        "settings": yaml.safe_load((Path(folder) / "config.yaml").read_text(encoding="utf-8")),
        **{key: run[key] for key in ("frames", "seconds")},
    }


def class_rows(found: dict[str, list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """The IoU of every class, in percent: a row per class, a column per arm."""
    for name in CLASSES:
        yield {"class": name, **{arm: round(_mean(runs, f"IoU.{name}"), 1) for arm, runs in found.items()}}


def _mean(runs: list[dict[str, Any]], metric: str) -> float:
    """Over the seeds; a class that is in neither labels nor predictions counts as 0."""
    return sum(run["metrics"][metric] or 0.0 for run in runs) / len(runs)


def summary(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The payload of the result file."""
    runs = [run for one in found.values() for run in one]
    return {
        "settings": {key: runs[0][key] for key in ("network", "scale")} | {"split": "test", "label_size": [480, 360]},
        "runs_on": sorted({run["hardware"].get("accelerator", run["hardware"]["processor"]) for run in runs}),
        "results": [arm_row(name, one) for name, one in found.items()],
        "differences": list(difference_rows(found)),
        "classes": list(class_rows(found)),
    }


def figure_rows(options: Namespace) -> list[SegmentedImage]:
    """The frames of the figure, with the predictions of the two arms by the first seed."""
    labels = sorted((Path(options.data) / "labels" / "test").glob("*.png"))
    if not labels:
        raise MissingError(f"no labels in {options.data}/labels/test; --data is the folder of CamVid")
    count = options.frames
    chosen = [labels[(2 * index + 1) * len(labels) // (2 * count)] for index in range(count)]
    return [_figure_row(label, options) for label in chosen]


def _figure_row(label: Path, options: Namespace) -> SegmentedImage:
    image = Path(options.data) / "images" / "test" / f"{label.stem}.jpg"
    ids = np.asarray(Image.open(label))
    predictions = {}
    for arm in options.arms.split(","):
        folder = Path(options.work) / f"{options.network}_{arm}_0" / PREDICTIONS
        predictions[ARMS[arm].title] = np.asarray(Image.open(folder / f"{label.stem}.png"))
    return SegmentedImage(
        np.asarray(Image.open(image).convert("RGB")), np.where(ids == UNLABELLED, IGNORED, ids), predictions
    )


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, help="the folder of camvid.py --work")
    parser.add_argument("--network", choices=NETWORKS, default=NETWORKS[0])
    parser.add_argument("--out", default=None, help="write the results to this JSON file")
    parser.add_argument("--search", default=None, help="the folder of camvid_search.py --out, to be recorded")
    parser.add_argument("--data", default=None, help="the folder that holds images/ and labels/, for the figure")
    parser.add_argument("--figure", default=None, help="write the figure here, as .png and .svg")
    parser.add_argument("--arms", default="bare,searched", help="the two arms or more of the figure")
    parser.add_argument("--frames", type=int, default=3, help="test frames of the figure")
    options = parser.parse_args()
    if options.figure is None:
        payload = summary(gathered(options))
        if options.search is not None:
            payload["search"] = search_record(options.search)
        write_result(options.out, "camvid", payload, columns=COLUMNS)
        return
    if options.data is None:
        parser.error("--figure needs --data")
    palette = dict(zip(CLASSES, CamVidDataset.METAINFO["palette"], strict=True))
    paths = save_figure(segmentation_figure(figure_rows(options), palette), options.figure, dpi=144)
    Console().print("figure:", *paths, highlight=False)


if __name__ == "__main__":
    main()
