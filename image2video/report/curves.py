"""Curves over time: τ of every edge, perturbation scores, and the learning curves of the arms."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from image2video.report.result import ArmRuns, ComparisonResult, Run, SearchRecord
from image2video.report.style import (
    BLACK,
    GREY,
    INK,
    PALETTE,
    colours,
    dashes,
    drawing,
    new_figure,
    same_y,
    short_labels,
)
from image2video.report.verdict import signed

_MANY_OPS = 8
_LEGEND_WIDTH = 150  # characters over the width of the figure


def entropy_figure(epochs: Sequence[int], entropy: Sequence[float], ops: int) -> Figure:
    """The mean entropy of τ's rows in nats over the search; dotted: that of equal weights, ln(`ops`)."""
    with drawing():
        figure = new_figure(5.4, 2.2)
        axis = figure.add_subplot()
        axis.axhline(math.log(ops), color=GREY, linewidth=0.8, linestyle=(0, (1, 2)))
        axis.plot(epochs, entropy, color=PALETTE[0], linewidth=1.6, marker="o" if len(entropy) == 1 else None)
        axis.set(xlabel="epoch of the search", ylabel="entropy of τ (nats)", ylim=(0, 1.08 * math.log(max(ops, 2))))
        axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    return figure


def tau_figure(search: SearchRecord) -> Figure:
    """One panel per edge: the softmax weight of every op over the search's epochs, all panels on one scale."""
    columns = min(5, len(search.edges))
    rows = math.ceil(len(search.edges) / columns)
    palette, patterns = colours(len(search.ops)), dashes(len(search.ops))
    values = [w for epoch in search.weights for row in epoch for w in row]
    margin = max(0.01, 0.08 * (max(values) - min(values)))
    with drawing():
        names = short_labels(search.ops) if len(search.ops) > _MANY_OPS else list(search.ops)
        across = min(len(names), max(1, _LEGEND_WIDTH // (max(map(len, names)) + 8)))
        figure = new_figure(10, 1.55 * rows + 0.55 + 0.17 * math.ceil(len(names) / across))
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for index, edge in enumerate(search.edges):
            axis = axes[index // columns, index % columns]
            axis.axhline(1 / len(search.ops), color=GREY, linewidth=0.6, linestyle=(0, (1, 2)))
            for op, name in enumerate(names):
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
        for axis in axes.flat[max(0, len(search.edges) - columns) : len(search.edges)]:  # the lowest of each column
            axis.tick_params(labelbottom=True)
            axis.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        for axis in axes[-1, :]:
            axis.set_xlabel("epoch of the search")
        handles, _ = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=across)
    return figure


def scores_figure(search: SearchRecord) -> Figure:
    """A row per edge, a column per op: the points of the held-out metric that masking the op costs; kept are framed.

    Purple costs some (the op is needed), orange gains. One scale for all edges, symmetric about 0. With more
    than eight ops rows and columns change places, so that the names are read from left to right.
    """
    largest = max((abs(v) for row in search.drops for v in row if v is not None), default=0.0) or 1.0
    turned = len(search.ops) > _MANY_OPS
    grid = [[math.nan if v is None else v for v in row] for row in search.drops]
    edges, ops = len(search.edges), len(search.ops)
    with drawing():
        size = (2.6 + 0.6 * edges, 1.0 + 0.26 * ops) if turned else (1.6 + 1.05 * ops, 1.0 + 0.3 * edges)
        figure = new_figure(*size)
        axis = figure.add_subplot()
        shown = [list(column) for column in zip(*grid, strict=True)] if turned else grid
        image = axis.imshow(shown, cmap="PuOr", vmin=-largest, vmax=largest, aspect="auto")
        for edge, values in enumerate(search.drops):
            for op, value in enumerate(values):
                _score(axis, (edge, op) if turned else (op, edge), value, largest)
            _frame(axis, (edge, search.chosen[edge]) if turned else (search.chosen[edge], edge))
        names = [edge_name(edge, search.inputs) for edge in search.edges]
        axis.set_xticks(range(edges if turned else ops), names if turned else search.ops, rotation=20, ha="right")
        axis.set_yticks(range(ops if turned else edges), search.ops if turned else names)
        for edge in search.path:
            (axis.get_xticklabels() if turned else axis.get_yticklabels())[edge].set_fontweight("bold")
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        figure.colorbar(image, ax=axis, label=f"held-out {search.metric} lost (points)", shrink=0.8, pad=0.02)
    return figure


def _score(axis: Axes, at: tuple[int, int], value: float | None, largest: float) -> None:
    """The number of one cell; a dash where nothing was measured."""
    strong = value is not None and abs(value) > 0.6 * largest
    colour = GREY if value is None else "white" if strong else INK
    axis.text(*at, "–" if value is None else signed(value), ha="center", va="center", fontsize=8, color=colour)


def _frame(axis: Axes, at: tuple[int, int]) -> None:
    corner = (at[0] - 0.5, at[1] - 0.5)
    axis.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=BLACK, linewidth=1.8, zorder=3))


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
