"""What every arm gains over one of them, against what an image costs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.figure import Figure

from image2video.errors import InputError
from image2video.report.style import GREY, PALETTE, drawing, new_figure
from image2video.report.table import count_text

Kind = Literal["averaged", "fused", "bare"]

_LOOKS: dict[Kind, tuple[str, str, str]] = {
    "averaged": ("predictions averaged", "o", PALETTE[0]),
    "fused": ("frames fused", "s", PALETTE[4]),
    "bare": ("bare", "D", PALETTE[7]),
}
_ALIKE = 1.02  # costs whose ratio is smaller stand together


@dataclass(frozen=True)
class Gain:
    """An arm beside the one that gains are over.

    Attributes:
        name: of the arm.
        kind: what becomes of its frames; `bare` where it has none.
        macs: multiply-accumulates of one image.
        mean: points of accuracy over the other arm.
        low: the lower end of the interval.
        high: the upper end.
        seeds: how many stand behind it; one alone is drawn hollow.
    """

    name: str
    kind: Kind
    macs: float
    mean: float
    low: float
    high: float
    seeds: int


def gains_figure(gains: Sequence[Gain], over: str, macs: float, *, width: float = 7.4) -> Figure:
    """A point with its interval per arm, in the order of the multiply-accumulates, those of equal cost together.

    Args:
        gains: the arms.
        over: the name of the arm that gains are over.
        macs: its multiply-accumulates of one image.
        width: of the figure, in inches.

    Returns:
        The figure.

    Raises:
        InputError: no arm.
    """
    if not gains:
        raise InputError(f"no arm is measured beside {over!r}, so there is nothing to draw; run one more")
    points = sorted(gains, key=lambda gain: gain.macs)
    places, costs = _places(points)
    with drawing():
        figure = new_figure(width, 0.52 * width)
        axis = figure.add_subplot()
        axis.axhline(0, color=GREY, linewidth=0.8)
        named: set[str] = set()  # the legend names each kind once
        for x, point in zip(places, points, strict=True):
            name, marker, colour = _LOOKS[point.kind]
            axis.errorbar(
                [x],
                [point.mean],
                yerr=[[point.mean - point.low], [point.high - point.mean]],
                fmt=marker,
                color=colour,
                mfc=colour if point.seeds > 1 else "none",
                markersize=5,
                capsize=2.5,
                linewidth=1.1,
                label="" if name in named else name,
            )
            named.add(name)
        axis.set_xticks(places, [point.name for point in points], rotation=60, ha="right")
        for first, last, cost in costs:
            axis.annotate(
                f"{count_text(cost)}\n{cost / macs:.2g}×",
                ((first + last) / 2, 1.0),
                xycoords=axis.get_xaxis_transform(),
                ha="center",
                va="bottom",
                fontsize=7,
            )
            if first > 0:
                axis.axvline(first - 0.75, color="#e5e5e5", linewidth=0.8)
        axis.set_ylabel(f"points over “{over}”")
        axis.set_xlabel(
            "arms in the order of the multiply-accumulates of one image, which stand above; hollow: one seed"
        )
        axis.xaxis.label.set_fontsize(8)
        axis.grid(axis="y", color="#e5e5e5", linewidth=0.6)
        axis.set_axisbelow(True)
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def _places(points: Sequence[Gain]) -> tuple[list[float], list[tuple[float, float, float]]]:
    """Where points stand, further apart between costs; and (first place, last place, cost) of those of equal cost."""
    places: list[float] = []
    costs: list[tuple[float, float, float]] = []
    for point in points:
        if costs and point.macs <= costs[-1][2] * _ALIKE:
            places.append(places[-1] + 1)
            costs[-1] = (costs[-1][0], places[-1], costs[-1][2])
        else:
            places.append(places[-1] + 1.5 if places else 0.0)
            costs.append((places[-1], places[-1], point.macs))
    return places, costs
