"""The arms of a comparison one below the other: mean, interval and seeds, and what was published beside them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from image2video.errors import InputError
from image2video.report.result import ArmRuns, ComparisonResult
from image2video.report.stats import mean_interval
from image2video.report.style import GREY, colours, drawing, new_figure
from image2video.report.table import metric_name

_LABEL = 34  # letters in a line of an arm's title
_MARGIN = 0.08
_BELOW = 0.28  # where the seeds of an arm stand, in lines below its mean
_FURTHEST = 0.5  # a published figure further off, in widths of what was measured, is written and not drawn


def arms_figure(
    result: ComparisonResult, published: Mapping[str, float] | None = None, *, width: float = 6.4
) -> Figure:
    """A line per finished arm: its mean with the 95 % interval, its seeds as dots, and the published number.

    A published number stands at the right, and as a ring on its line unless it is so far from all that was measured
    that the intervals could no longer be seen.

    Args:
        result: the comparison.
        published: in percent, by the arm's name.
        width: of the figure, in inches.

    Returns:
        The figure.

    Raises:
        InputError: no arm is finished.
    """
    arms = [arm for arm in result.arms if arm.runs]
    if not arms:
        raise InputError(f"{result.title}: no arm has a finished run, so there is nothing to draw")
    numbers = [published.get(arm.name) if published else None for arm in arms]
    labels = [textwrap.fill(arm.title, _LABEL) for arm in arms]
    lines = sum(1 + label.count("\n") for label in labels)
    with drawing():
        figure = new_figure(width, 0.95 + 0.15 * len(arms) + 0.13 * lines)
        axis = figure.add_subplot()
        low, high = _drawn(axis, arms)
        reach = _FURTHEST * max(high - low, 1.0)
        rings = [number for number in numbers if number is not None and low - reach <= number <= high + reach]
        low, high = min([low, *rings]), max([high, *rings])
        margin = _MARGIN * max(high - low, 1.0)
        axis.set_xlim(low - margin, high + margin)
        _published(axis, numbers, rings)
        axis.set_yticks(range(len(arms)), labels)
        axis.set_ylim(len(arms) - 0.4, -0.6)
        axis.set_xlabel(f"{metric_name(result)} on the test set (%)")
        axis.grid(axis="x", color="#e5e5e5", linewidth=0.6)
        axis.set_axisbelow(True)
        figure.legend(loc="outside upper right", ncols=3)
    return figure


def _drawn(axis: Axes, arms: list[ArmRuns]) -> tuple[float, float]:
    """Draw what was measured; the lowest and the highest value of it."""
    ours, dots = colours(2)
    values: list[float] = []
    labelled: set[str] = set()  # the legend names each kind of mark once
    for y, arm in enumerate(arms):
        seeds = list(arm.by_seed().values())
        interval = mean_interval(seeds)
        half = 0.0 if interval.n == 1 else interval.half_width
        if interval.n == 1:
            alone = "" if "one seed, no interval" in labelled else "one seed, no interval"
            axis.plot([interval.mean], [y], "D", color=ours, markersize=4.5, mfc="none", label=alone)
            labelled.add(alone)
        else:
            mean, several = ("", "") if "seeds" in labelled else ("ours, 95 % interval", "seeds")
            axis.plot(seeds, [y + _BELOW] * len(seeds), ".", color=dots, markersize=5, label=several)
            axis.errorbar([interval.mean], [y], xerr=[half], fmt="o", color=ours, markersize=4.5, capsize=3, label=mean)
            labelled.add(several)
        values += [*seeds, interval.mean - half, interval.mean + half]
    return min(values), max(values)


def _published(axis: Axes, numbers: list[float | None], rings: list[float]) -> None:
    """Write the published numbers at the right, and draw those that fit."""
    if not any(number is not None for number in numbers):
        return
    colour = colours(5)[4]
    if rings:
        axis.plot([], [], "o", mfc="none", mec=colour, markersize=8, label="published")
    axis.text(1.02, -0.6, "published", transform=axis.get_yaxis_transform(), fontsize=8, color=colour, va="bottom")
    for y, number in enumerate(numbers):
        if number is None:
            continue
        if number in rings:
            axis.plot([number], [y], "o", mfc="none", mec=colour, markersize=8)
        outside = "" if number in rings else "  (not drawn)"
        text = f"{number:.2f}{outside}"
        axis.text(1.02, y, text, transform=axis.get_yaxis_transform(), fontsize=8, color=GREY, va="center")
