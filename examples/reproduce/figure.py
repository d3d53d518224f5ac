"""The figure of a table: every arm with its interval, the paper's number beside it."""

from __future__ import annotations

from matplotlib.figure import Figure

from image2video.report.style import colours, drawing, new_figure
from image2video.reproduce.outcome import RowOutcome


def table_figure(outcome: RowOutcome, *, width: float = 6.4) -> Figure:
    """One line per finished arm: our mean with its 95 % interval, seeds as dots, and the paper's number as a ring."""
    lines = [line for line in outcome.lines if line.score is not None]
    ours, dots, paper = colours(3)
    with drawing():
        figure = new_figure(width, 0.9 + 0.3 * len(lines))
        axis = figure.add_subplot()
        for y, line in enumerate(lines):
            assert line.score is not None
            half = 0.0 if line.score.n == 1 else line.score.half_width
            seeds = list(line.by_seed.values())
            axis.plot(seeds, [y] * len(seeds), ".", color=dots, alpha=0.6, markersize=5, label="seeds" if not y else "")
            axis.errorbar(
                [line.score.mean], [y], xerr=[half], fmt="o", color=ours, capsize=3, label="ours" if not y else ""
            )
            if line.paper is not None:
                axis.plot([line.paper], [y], "o", mfc="none", mec=paper, markersize=8)
        if any(line.paper is not None for line in lines):
            axis.plot([], [], "o", mfc="none", mec=paper, markersize=8, label="paper")
        axis.set_yticks(range(len(lines)), [line.arm.title for line in lines])
        axis.invert_yaxis()
        axis.set_xlabel(f"{outcome.row.metric} on the test set (%)")
        axis.grid(axis="x", color="#e5e5e5", linewidth=0.6)
        figure.legend(loc="outside lower right", ncols=3)
    return figure
