"""The accuracy table: one row per arm, mean and interval over seeds, and what each arm costs."""

from __future__ import annotations

import re
import statistics
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from html import escape

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from image2video.report.page import cells_html, wide_table
from image2video.report.result import ArmRuns, ComparisonResult
from image2video.report.stats import Interval, mean_interval

COLUMNS = (
    "arm",
    "genotype",
    "accuracy, %",
    "n",
    "MACs / image",
    "ms / image",
    "parameters",
    "training frames",
)


@dataclass(frozen=True)
class ArmRow:
    """One row of the table.

    Attributes:
        name: of the arm.
        title: of the arm.
        group: the heading under which it stands.
        genotypes: of its runs, each once.
        accuracy: in percent, with its 95 % t interval over seeds.
        macs: per image, mean over the runs.
        ms: per image, median over all runs of this network and clip, those of other arms included.
        ms_range: the least and the most of them.
        parameters: of the network.
        frames: what the weights have seen in all, the arm that they started from included.
    """

    name: str
    title: str
    group: str
    genotypes: tuple[str, ...]
    accuracy: Interval
    macs: float | None
    ms: float | None
    ms_range: tuple[float, float] | None
    parameters: int
    frames: int

    def cells(self) -> tuple[str, ...]:
        """The row as text, in the order of `COLUMNS`."""
        return (
            self.title,
            genotype_text(self.genotypes[0]) if len(self.genotypes) == 1 else f"{len(self.genotypes)} different",
            accuracy_text(self.accuracy),
            str(self.accuracy.n),
            "–" if self.macs is None else count_text(self.macs),
            "–" if self.ms is None else f"{self.ms:.3f}",
            count_text(self.parameters),
            count_text(self.frames),
        )


def arm_rows(result: ComparisonResult) -> list[ArmRow]:
    """The rows of the table.

    Args:
        result: the comparison.

    Returns:
        A row for each arm that has a finished run, in the result's order.
    """
    times: dict[Hashable, list[float]] = {}
    for arm in result.arms:
        for run in arm.runs:
            if run.ms is not None:
                times.setdefault(_network(arm), []).append(run.ms)
    return [_row(arm, times.get(_network(arm), [])) for arm in result.arms if arm.runs]


def _network(arm: ArmRuns) -> Hashable:
    """What tells networks apart that take another time: arms of one network and clip differ in their training alone."""
    return frozenset((run.parameters, run.macs, run.genotype) for run in arm.runs)


def _row(arm: ArmRuns, times: Sequence[float]) -> ArmRow:
    """The row of an arm, and the times of all runs of its network."""
    runs = arm.runs
    return ArmRow(
        name=arm.name,
        title=arm.title,
        group=arm.group,
        genotypes=tuple(dict.fromkeys(run.genotype for run in runs)),
        accuracy=mean_interval([run.accuracy for run in runs]),
        macs=_mean([run.macs for run in runs]),
        ms=statistics.median(times) if times else None,
        ms_range=(min(times), max(times)) if times else None,
        parameters=runs[0].parameters,
        frames=round(sum(run.frames + run.start_frames for run in runs) / len(runs)),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean of the values that are known; None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def metric_name(result: ComparisonResult) -> str:
    """What the accuracies of a comparison are: `top-1`, or another task's metric."""
    return str(result.data.get("metric", "top-1"))


def accuracy_text(accuracy: Interval) -> str:
    """`97.2 ± 0.4`, the half width of the 95 % interval; the accuracy of a single run stands alone."""
    return f"{accuracy.mean:.1f}" if accuracy.n == 1 else f"{accuracy.mean:.1f} ± {accuracy.half_width:.1f}"


def genotype_text(genotype: str) -> str:
    """A genotype with magnitudes of at most four digits: for reading, not for parsing."""
    return re.sub(r"\((-?\d+\.\d+)( cells?)?\)", lambda found: f"({float(found[1]):.4g}{found[2] or ''})", genotype)


def count_text(value: float) -> str:
    """A count with three figures and k, M or G: 78042 is `78.0 k`."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        scaled = value / unit
        if value >= unit * 0.9995:  # what would round to 1000 of the unit below
            digits = 2
            if scaled >= 10:
                digits = 1 if scaled < 100 else 0
            return f"{scaled:.{digits}f} {letter}"
    return f"{value:.0f}"


def render_table(result: ComparisonResult) -> Table:
    """The table for a terminal of 80 columns.

    Args:
        result: the comparison.

    Returns:
        A table with the genotype below each arm, and a rule between the groups of arms.
    """
    rows = arm_rows(result)
    counts = [str(row.accuracy.n) for row in rows]
    if len(set(counts)) == 1:
        counts = counts[:1]
    n = f"n = {', '.join(counts)}"
    title = f"{result.title}: {metric_name(result)} on the test set, mean ± 95 % interval over seeds ({n})"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("arm", overflow="fold", ratio=1)
    for name in ("accuracy\n%", "MACs\n/ image", "ms\n/ image", "para-\nmeters", "training\nframes"):
        table.add_column(name, justify="right", no_wrap=True)
    for index, row in enumerate(rows):
        title, genotype, accuracy, _, *costs = row.cells()
        arm = Text(title)
        if genotype != "none":
            arm.append(f"\n  {genotype}", style="dim")
        last = index + 1 == len(rows) or rows[index + 1].group != row.group
        table.add_row(arm, accuracy, *costs, end_section=last)
    return table


def html_table(result: ComparisonResult) -> str:
    """The table as HTML, a heading row for each group of arms."""
    head = cells_html("th", COLUMNS, range(2, len(COLUMNS)))
    body, group = [], None
    for row in arm_rows(result):
        if row.group != group:
            group = row.group
            body.append(f'<tr class="group"><th colspan="{len(COLUMNS)}">{escape(group)}</th></tr>')
        title, genotype, *figures = row.cells()
        if row.ms_range is not None:
            ms = COLUMNS.index("ms / image") - 2  # the figures begin behind title and genotype
            figures[ms] += f" ({row.ms_range[0]:.3f} … {row.ms_range[1]:.3f})"
        if len(row.genotypes) > 1:
            genotype = "; ".join(map(genotype_text, row.genotypes))
        cells = f'<td>{escape(title)}</td><td class="genotype">{escape(genotype)}</td>'
        body.append(f"<tr>{cells}{cells_html('td', figures, range(len(figures)))}</tr>")
    return wide_table(head, "".join(body))
