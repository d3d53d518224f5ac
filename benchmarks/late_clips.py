r"""What a clip gives by the place where it begins, against what it costs, from runs of `image2video reproduce`.

    python benchmarks/late_clips.py --runs runs/converged --out benchmarks/results/late_clips.json
    python benchmarks/late_clips.py --runs runs/converged --figure docs/figures/late_clips

`places` are the networks of the table `late`, which meet another pose and are not trained for it: a row per place and
number of frames, with its gain over the bare network and the shares that it keeps of the gain and of the cost of as
many frames at the image; `front` has those of three frames. `trained` are the arms of `smalldata` and `scratch` that
are trained with their clip: gains at equal epochs and over three times the epochs, beside what the training and the
image cost.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness import write_result
from reproduce_summary import both_row, finished
from rich.console import Console

from image2video.report import save_figure
from image2video.report.style import DASHES, GREY, PALETTE, drawing, new_figure
from image2video.reproduce.outcome import Line, RowOutcome

SCALE = "converged"
POSES = {"tilt": "tilted by 20°", "small": "at 0.75 of the size"}
PLACES = ("image", "layer1", "layer2", "layer3")
FRAMES = (2, 3, 5)
FRONT = 3  # the frames of the rows on the front page of late clips


@dataclass(frozen=True)
class Trained:
    """The arms of a table's first row that are trained with clips: place -> arm, for each way to use the frames."""

    table: str
    averaged: Mapping[str, str]
    fused: Mapping[str, str]

    def arms(self) -> Iterator[tuple[str, str, str]]:
        """Way, place and arm."""
        for way, arms in (("averaged", self.averaged), ("GSF", self.fused)):
            for place, arm in arms.items():
                yield way, place, arm


TRAINED = (
    Trained(
        "smalldata",
        {"image": "none", "blocks.3": "late3", "blocks.5": "late5"},
        {"image": "ranked", "blocks.3": "late3_gsf", "blocks.5": "late5_gsf"},
    ),
    Trained(
        "scratch",
        {"image": "image_cell", "layer2": "layer2_cell", "layer3": "layer3_cell"},
        {"image": "image_cell_gsf", "layer2": "layer2_cell_gsf", "layer3": "layer3_cell_gsf"},
    ),
)


def line_of(outcome: RowOutcome, arm: str) -> Line | None:
    """The line of an arm, where it was measured."""
    return next((line for line in outcome.lines if line.arm.name == arm and line.right), None)


def place_rows(outcome: RowOutcome) -> Iterator[dict[str, Any]]:
    """What clips give networks that are not trained for a pose, by place and frames."""
    for pose, title in POSES.items():
        bare = line_of(outcome, f"{pose}_alone")
        for T in FRAMES:
            whole = outcome.gap(f"{pose}_image_{T}", f"{pose}_alone")
            for place in PLACES:
                line = line_of(outcome, f"{pose}_{place}_{T}")
                gap = outcome.gap(f"{pose}_{place}_{T}", f"{pose}_alone")
                if bare is None or line is None or gap is None or line.macs is None or bare.macs is None:
                    continue
                cost = line.macs / bare.macs
                beside = None if place == "image" else outcome.gap(f"{pose}_{place}_{T}", f"{pose}_image_{T}")
                yield {
                    "pose": title,
                    "place": place,
                    "T": T,
                    "cost": round(cost, 2),
                    "clips": list(line.genotypes),
                    "points": round(gap.mean, 2),
                    "share_of_gain": None if whole is None else round(gap.mean / whole.mean, 2),
                    "share_of_cost": round(cost / T, 2),
                    **both_row(gap),
                    "low": round(gap.low, 2),
                    "high": round(gap.high, 2),
                    "over_image": None if beside is None else round(beside.mean, 2),
                    "over_image_both": both_row(beside).get("over_both"),
                    "over_image_seeds": both_row(beside).get("over_seeds"),
                    "over_image_reading": both_row(beside).get("reading"),
                }


def trained_rows(trained: Trained, outcome: RowOutcome) -> Iterator[dict[str, Any]]:
    """What clips give networks that are trained with them, at equal epochs and over three times the epochs."""
    bare = line_of(outcome, "bare")
    if bare is None:
        return
    for way, place, arm in [("bare", "–", "bare_long"), *trained.arms()]:
        line, gap = line_of(outcome, arm), outcome.gap(arm, "bare")
        if line is None or gap is None or line.macs is None or bare.macs is None:
            continue
        assert line.epochs is not None
        assert bare.epochs is not None
        cost = line.macs / bare.macs
        longer = None if way == "bare" else outcome.gap(arm, "bare_long")
        yield {
            "row": outcome.row.name,
            "way": way,
            "place": place,
            "clips": list(line.genotypes),
            "cost": round(cost, 2),
            "training": round(cost * line.epochs / bare.epochs, 2),
            "points": round(gap.mean, 2),
            **both_row(gap),
            "low": round(gap.low, 2),
            "high": round(gap.high, 2),
            "over_long": None if longer is None else round(longer.mean, 2),
            "over_long_both": both_row(longer).get("over_both"),
            "over_long_reading": both_row(longer).get("reading"),
        }


def lists(options: Namespace) -> dict[str, list[dict[str, Any]]]:
    """The rows of both lists, and `results`, which is all of them."""
    found = finished(options)
    places = [row for outcome in found.get("late", ()) for row in place_rows(outcome)]
    trained = []
    for one in TRAINED:
        # The places are those of the network of a table's first row.
        for outcome in found.get(one.table, ())[:1]:
            trained += trained_rows(one, outcome)
    front = [row for row in places if row["T"] == FRONT]
    return {"results": [*places, *trained], "front": front, "places": places, "trained": trained}


def figure(found: Mapping[str, list[dict[str, Any]]]) -> Any:
    """A panel per pose with a curve per place, and one per trained setting."""
    names = list(dict.fromkeys(row["row"] for row in found["trained"]))
    with drawing():
        drawn = new_figure(7.4, 2.9 * (1 + bool(names)))
        axes = drawn.subplots(1 + bool(names), 2, squeeze=False)
        for axis, title in zip(axes[0], POSES.values(), strict=True):
            _pose_panel(axis, title, [row for row in found["places"] if row["pose"] == title])
        axes[0][0].legend(title="the clip begins at", loc="best")
        for axis, name in zip(axes[-1], names, strict=False):
            _trained_panel(axis, name, [row for row in found["trained"] if row["row"] == name])
        if names:
            axes[-1][0].legend(loc="best")
            axes[-1][1].set_visible(len(names) > 1)
    return drawn


def _pose_panel(axis: Any, title: str, rows: list[dict[str, Any]]) -> None:
    for number, place in enumerate(PLACES):
        curve = [row for row in rows if row["place"] == place]
        costs, points = [row["cost"] for row in curve], [row["points"] for row in curve]
        ends = [[row["points"] - row["low"] for row in curve], [row["high"] - row["points"] for row in curve]]
        look = {"linestyle": DASHES[number], "color": PALETTE[number], "markersize": 4, "capsize": 2, "elinewidth": 0.6}
        axis.errorbar(costs, points, yerr=ends, fmt="o", label=place, **look)
    axis.axhline(0, color=GREY, linewidth=0.8)
    axis.set_title(f"digits {title}, nothing trained")
    axis.set_xlabel("cost of an image, × the bare network")
    axis.set_ylabel("points over the bare network")


def _trained_panel(axis: Any, name: str, rows: list[dict[str, Any]]) -> None:
    looks = {"bare": ("D", PALETTE[7]), "averaged": ("o", PALETTE[0]), "GSF": ("s", PALETTE[4])}
    for way, (marker, colour) in looks.items():
        for number, row in enumerate(one for one in rows if one["way"] == way):
            ends = [[max(0.0, row["points"] - row["low"])], [max(0.0, row["high"] - row["points"])]]
            label = way if number == 0 else None
            filled = colour if row["seeds"] > 1 else "none"
            axis.errorbar(
                [row["training"]],
                [row["points"]],
                yerr=ends,
                fmt=marker,
                color=colour,
                mfc=filled,
                capsize=2,
                label=label,
            )
            if way != "bare":
                where = (row["training"], row["points"])
                beside = (4, 3 if way == "averaged" else -9)
                axis.annotate(row["place"], where, xytext=beside, textcoords="offset points", fontsize=7)
    long = next((row for row in rows if row["way"] == "bare"), None)
    if long is not None:
        axis.plot([1, long["training"]], [0, long["points"]], color=PALETTE[7], linewidth=0.9, zorder=0)
    axis.axhline(0, color=GREY, linewidth=0.8)
    axis.set_title(name)
    axis.set_xlabel("compute of the training, × the bare network")
    axis.set_ylabel("points over the bare network")


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--runs", required=True, help="the folder of `image2video reproduce --out`")
    parser.add_argument("--out", default=None, help="write the rows to this JSON file")
    parser.add_argument("--commit", default=None, help="the commit whose code ran, if not this one")
    parser.add_argument("--figure", default=None, help="write the figure to this path, as .png and .svg")
    options = parser.parse_args()
    found = lists(Namespace(runs=options.runs, scale=SCALE, tables="late,smalldata,scratch"))
    if options.figure is not None:
        Console().print(*save_figure(figure(found), options.figure, dpi=144), highlight=False)
        return
    payload: dict[str, Any] = {"settings": {"scale": SCALE}, **found}
    if options.commit is not None:
        payload["commit"] = options.commit
    write_result(options.out, "late_clips", payload, columns=("place", "T", "cost", "points", "over_both", "n"))


if __name__ == "__main__":
    main()
