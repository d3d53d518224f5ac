"""Curves over time: τ of every edge, perturbation scores, and the learning curves of the arms."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from image2video.report.result import ArmRuns, ComparisonResult, Run, SearchRecord
from image2video.report.style import BLACK, GREY, INK, colours, dashes, drawing, new_figure, same_y
from image2video.report.verdict import signed


def tau_figure(search: SearchRecord) -> Figure:
    """One panel per edge: the softmax weight of every op over the search's epochs, all panels on one scale."""
    columns = min(5, len(search.edges))
    rows = math.ceil(len(search.edges) / columns)
    palette, patterns = colours(len(search.ops)), dashes(len(search.ops))
    values = [w for epoch in search.weights for row in epoch for w in row]
    margin = max(0.01, 0.08 * (max(values) - min(values)))
    with drawing():
        figure = new_figure(10, 1.55 * rows + 0.7)
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for index, edge in enumerate(search.edges):
            axis = axes[index // columns, index % columns]
            axis.axhline(1 / len(search.ops), color=GREY, linewidth=0.6, linestyle=(0, (1, 2)))
            for op, name in enumerate(search.ops):
                line = [epoch[index][op] for epoch in search.weights]
                marker = "o" if len(line) == 1 else None
                axis.plot(
                    search.epochs,
                    line,
                    color=palette[op],
                    linestyle=patterns[op],
                    linewidth=1.4,
                    marker=marker,
                    label=name,
                )
            axis.set_title(edge_name(edge, search.inputs), color=BLACK if index in search.path else INK)
            axis.title.set_fontweight("bold" if index in search.path else "normal")
        for axis in axes.flat[len(search.edges) :]:
            axis.set_visible(False)
        same_y(list(axes.flat), max(0.0, min(values) - margin), min(1.0, max(values) + margin))
        for axis in axes[:, 0]:
            axis.set_ylabel("softmax weight τ")
        for axis in axes[-1, :]:
            axis.set_xlabel("epoch of the search")
            axis.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        handles, names = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 8))
    return figure


def scores_figure(search: SearchRecord) -> Figure:
    """A row per edge, a column per op: the points of held-out accuracy that masking the op costs; kept ops are framed.

    Purple costs accuracy (the op is needed), orange gains it. One scale for all edges, symmetric about 0.
    """
    drops = search.drops
    largest = max((abs(v) for row in drops for v in row if v is not None), default=0.0) or 1.0
    grid = [[math.nan if v is None else v for v in row] for row in drops]
    with drawing():
        figure = new_figure(1.6 + 1.05 * len(search.ops), 1.0 + 0.3 * len(search.edges))
        axis = figure.add_subplot()
        image = axis.imshow(grid, cmap="PuOr", vmin=-largest, vmax=largest, aspect="auto")
        for row, values in enumerate(drops):
            for column, value in enumerate(values):
                if value is None:
                    axis.text(column, row, "–", ha="center", va="center", color=GREY)
                    continue
                strong = abs(value) > 0.6 * largest
                axis.text(
                    column, row, signed(value), ha="center", va="center", fontsize=8, color="white" if strong else INK
                )
            frame = Rectangle(
                (search.chosen[row] - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=BLACK, linewidth=1.8, zorder=3
            )
            axis.add_patch(frame)
        axis.set_xticks(range(len(search.ops)), search.ops, rotation=20, ha="right")
        axis.set_yticks(range(len(search.edges)), [edge_name(edge, search.inputs) for edge in search.edges])
        for row in search.path:
            axis.get_yticklabels()[row].set_fontweight("bold")
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        figure.colorbar(image, ax=axis, label="held-out accuracy lost (points)", shrink=0.8)
    return figure


def learning_figure(result: ComparisonResult) -> Figure:
    """Held-out accuracy of the arms: from scratch over epochs and over training frames (compute), then fine-tuning.

    Means over seeds, thin lines for single seeds, one vertical scale. It leaves out the first steep rise: the scale
    begins a little below the lowest accuracy in the last third of any run.
    """
    drawn = [arm for arm in result.arms if _values(arm)]
    scratch = [arm for arm in drawn if arm.start is None]
    tuned = [arm for arm in drawn if arm.start is not None]
    parts = [(scratch, False, "epoch"), (scratch, True, "training frames, thousands")]
    parts.append((tuned, True, "frames of fine-tuning, thousands"))
    parts = [part for part in parts if part[0]]
    late = [v for arm in drawn for v in _values(arm, last_third=True)]
    margin = max(0.5, 0.08 * (max(late) - min(late)))
    with drawing():
        figure = new_figure(10, 4.6)
        axes = figure.subplots(1, len(parts), sharey=True, squeeze=False)[0]
        for axis, (arms, by_frames, label) in zip(axes, parts, strict=True):
            for index, arm in enumerate(arms):
                _draw(axis, arm, by_frames, index if arm.start is None else len(scratch) + index)
            axis.set_xlabel(label)
            if not by_frames:
                axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        same_y(list(axes), max(0.0, min(late) - margin), min(100.5, max(late) + margin))
        axes[0].set_ylabel("held-out accuracy (%)")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=2)
        if scratch and tuned:
            figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside lower right")
    return figure


def _draw(axis: Axes, arm: ArmRuns, by_frames: bool, look: int) -> None:
    """One arm: its seeds thin, their mean thick."""
    colour, pattern = colours(look + 1)[look], dashes(look + 1)[look]
    lines = [line for run in arm.runs if (line := _line(run, by_frames))[0]]
    for x, y in lines:
        axis.plot(x, y, color=colour, linewidth=0.5, alpha=0.35)
    x, y = _mean_line(lines)
    marker = "o" if len(x) == 1 else None
    axis.plot(x, y, color=colour, linestyle=pattern, linewidth=1.8, marker=marker, label=arm.title)


def edge_name(edge: tuple[int, ...], inputs: int) -> str:
    """An edge in words: `in → 2`; nodes are numbered from 1, several inputs are `in 1`, `in 2`."""
    names = []
    for node in edge:
        if node >= inputs:
            names.append(str(node - inputs + 1))
        else:
            names.append("in" if inputs == 1 else f"in {node + 1}")
    return " → ".join(names)


def _values(arm: ArmRuns, *, last_third: bool = False) -> list[float]:
    """The held-out accuracies of all runs of an arm."""
    found = []
    for run in arm.runs:
        values = [point.holdout for point in run.curve if point.holdout is not None]
        found += values[2 * len(values) // 3 :] if last_third else values
    return found


def _line(run: Run, by_frames: bool) -> tuple[list[float], list[float]]:
    points = [point for point in run.curve if point.holdout is not None]
    x = [point.frames / 1000 if by_frames else float(point.epoch) for point in points]
    return x, [point.holdout for point in points if point.holdout is not None]


def _mean_line(lines: list[tuple[list[float], list[float]]]) -> tuple[list[float], list[float]]:
    """The mean over the seeds, as far as the shortest of them reaches."""
    length = min(len(x) for x, _ in lines)
    y = [sum(line[1][i] for line in lines) / len(lines) for i in range(length)]
    return lines[0][0][:length], y
