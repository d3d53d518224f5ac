"""Curves over time: τ of every edge, perturbation scores, and the learning curves of the arms."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from image2video.report.result import ArmRuns, ComparisonResult, CurvePoint, Run, SearchRecord
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
    """The mean entropy of τ's rows over the search; dotted: that of equal weights.

    Args:
        epochs: of the search.
        entropy: the mean over the edges at each of them, in nats.
        ops: how many candidates an edge has.

    Returns:
        The figure.
    """
    with drawing():
        figure = new_figure(5.4, 2.2)
        axis = figure.add_subplot()
        axis.axhline(math.log(ops), color=GREY, linewidth=0.8, linestyle=(0, (1, 2)))
        axis.plot(epochs, entropy, color=PALETTE[0], linewidth=1.6, marker="o" if len(entropy) == 1 else None)
        axis.set(xlabel="epoch of the search", ylabel="entropy of τ (nats)", ylim=(0, 1.08 * math.log(max(ops, 2))))
        axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    return figure


def tau_figure(search: SearchRecord) -> Figure:
    """One panel per edge: the softmax weight of every op over the search's epochs, all panels on one scale.

    Args:
        search: the search.

    Returns:
        The figure.
    """
    edges = len(search.edges)
    columns = min(5, edges)
    rows = math.ceil(edges / columns)
    names = short_labels(search.ops) if len(search.ops) > _MANY_OPS else list(search.ops)
    across = min(len(names), max(1, _LEGEND_WIDTH // (max(map(len, names)) + 8)))
    with drawing():
        figure = new_figure(10, 1.55 * rows + 0.55 + 0.17 * math.ceil(len(names) / across))
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for index, axis in enumerate(axes.flat[:edges]):
            _weights_of_edge(axis, search, index, names)
        for axis in axes.flat[edges:]:
            axis.set_visible(False)
        values = [weight for epoch in search.weights for row in epoch for weight in row]
        margin = max(0.01, 0.08 * (max(values) - min(values)))
        same_y(list(axes.flat), max(0.0, min(values) - margin), min(1.0, max(values) + margin))
        for axis in axes[:, 0]:
            axis.set_ylabel("softmax weight τ")
        for axis in axes.flat[max(0, edges - columns) : edges]:  # the lowest of each column
            axis.tick_params(labelbottom=True)
            axis.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        for axis in axes[-1, :]:
            axis.set_xlabel("epoch of the search")
        handles, _ = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=across)
    return figure


def _weights_of_edge(axis: Axes, search: SearchRecord, edge: int, names: Sequence[str]) -> None:
    """The weights of one edge over the epochs; the title of an edge on the path is bold."""
    axis.axhline(1 / len(search.ops), color=GREY, linewidth=0.6, linestyle=(0, (1, 2)))
    looks = zip(names, colours(len(names)), dashes(len(names)), strict=True)
    for op, (name, colour, pattern) in enumerate(looks):
        line = [epoch[edge][op] for epoch in search.weights]
        marker = "o" if len(line) == 1 else None
        axis.plot(search.epochs, line, color=colour, linestyle=pattern, linewidth=1.4, marker=marker, label=name)
    on_path = edge in search.path
    axis.set_title(edge_name(search.edges[edge], search.inputs), color=BLACK if on_path else INK)
    axis.title.set_fontweight("bold" if on_path else "normal")


def scores_figure(search: SearchRecord) -> Figure:
    """A row per edge, a column per op: the points of the held-out metric that masking the op costs; kept are framed.

    Purple costs some (the op is needed), orange gains. One scale for all edges, symmetric about 0. With more
    than eight ops rows and columns change places, so that the names are read from left to right.

    Args:
        search: the search.

    Returns:
        The figure.
    """
    drops = np.array(search.drops, dtype=float)  # NaN where nothing was measured
    known = np.abs(drops[~np.isnan(drops)])
    largest = float(known.max(initial=0.0)) or 1.0
    names = [edge_name(edge, search.inputs) for edge in search.edges]
    edges, ops = drops.shape
    turned = ops > _MANY_OPS
    with drawing():
        size = (2.6 + 0.6 * edges, 1.0 + 0.26 * ops) if turned else (1.6 + 1.05 * ops, 1.0 + 0.3 * edges)
        figure = new_figure(*size)
        axis = figure.add_subplot()
        image = axis.imshow(drops.T if turned else drops, cmap="PuOr", vmin=-largest, vmax=largest, aspect="auto")
        for edge, values in enumerate(search.drops):
            for op, value in enumerate(values):
                _score(axis, (edge, op) if turned else (op, edge), value, largest)
            kept = search.chosen[edge]
            _frame(axis, (edge, kept) if turned else (kept, edge))
        across, down = (names, search.ops) if turned else (search.ops, names)
        axis.set_xticks(range(len(across)), across, rotation=20, ha="right")
        axis.set_yticks(range(len(down)), down)
        labels = axis.get_xticklabels() if turned else axis.get_yticklabels()
        for edge in search.path:
            labels[edge].set_fontweight("bold")
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        figure.colorbar(image, ax=axis, label=f"held-out {search.metric} lost (points)", shrink=0.8, pad=0.02)
    return figure


def _score(axis: Axes, at: tuple[int, int], value: float | None, largest: float) -> None:
    """The number of one cell; a dash where nothing was measured."""
    text, colour = "–", GREY
    if value is not None:
        text, colour = signed(value), "white" if abs(value) > 0.6 * largest else INK
    axis.text(*at, text, ha="center", va="center", fontsize=8, color=colour)


def _frame(axis: Axes, at: tuple[int, int]) -> None:
    """A frame around one cell."""
    corner = (at[0] - 0.5, at[1] - 0.5)
    axis.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=BLACK, linewidth=1.8, zorder=3))


def learning_figure(result: ComparisonResult) -> Figure:
    """Held-out accuracy of the arms: from scratch over epochs and over training frames (compute), then fine-tuning.

    Means over seeds, thin lines for single seeds, one vertical scale. It leaves out the first steep rise: the scale
    begins a little below the lowest accuracy in the last third of any run.

    Args:
        result: the comparison.

    Returns:
        The figure.
    """
    drawn = [arm for arm in result.arms if _values(arm)]
    scratch = [arm for arm in drawn if arm.start is None]
    tuned = [arm for arm in drawn if arm.start is not None]
    parts = []
    if scratch:
        parts += [(scratch, False, "epoch"), (scratch, True, "training frames, thousands")]
    if tuned:
        parts.append((tuned, True, "frames of fine-tuning, thousands"))
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
    lines = [_line(run, by_frames) for run in arm.runs if _known(run)]
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
        values = [value for _, value in _known(run)]
        found += values[2 * len(values) // 3 :] if last_third else values
    return found


def _known(run: Run) -> list[tuple[CurvePoint, float]]:
    """The points of a run whose held-out accuracy is known, with it."""
    return [(point, point.holdout) for point in run.curve if point.holdout is not None]


def _line(run: Run, by_frames: bool) -> tuple[list[float], list[float]]:
    """The held-out accuracy of a run over thousands of frames, or over epochs."""
    x = [point.frames / 1000 if by_frames else float(point.epoch) for point, _ in _known(run)]
    return x, [value for _, value in _known(run)]


def _mean_line(lines: list[tuple[list[float], list[float]]]) -> tuple[list[float], list[float]]:
    """The mean over the seeds, as far as the shortest of them reaches."""
    length = min(len(x) for x, _ in lines)
    y = [sum(line[1][i] for line in lines) / len(lines) for i in range(length)]
    return lines[0][0][:length], y
