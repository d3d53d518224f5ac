"""What `image2video reproduce` prints of a table: a narrow table per row, and the sentences."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from image2video.report.table import count_text
from image2video.reproduce.drawing import Drawing
from image2video.reproduce.outcome import RowOutcome
from image2video.reproduce.render import gaps, minutes_text, scale_note, score_text, sentences
from image2video.reproduce.spec import Experiment

_NUMBERS = ("paper", "ours", "n", "frames", "ms /\nimage", "search\nmin")


def print_outcomes(console: Console, experiment: Experiment, scale: str, rows: Sequence[RowOutcome]) -> None:
    """The rows of a table one after the other, for 80 columns; all figures are in the files."""
    console.print(experiment.title, style="bold", markup=False)
    if note := scale_note(scale, rows):
        console.print(note, markup=False)
    for outcome in rows:
        console.print(_table(outcome))
        for text in (*sentences(outcome), *gaps(outcome)):
            console.print(text, markup=False)


def print_drawings(console: Console, drawings: Sequence[Drawing]) -> None:
    """What the figures say, and what is missing in them; the figures and their tables are in the files."""
    for drawing in drawings:
        for text in (*drawing.headlines, *drawing.gaps):
            console.print(text, markup=False)


def _table(outcome: RowOutcome) -> Table:
    setting = outcome.row.settings[outcome.scale]
    what = f"{outcome.row.metric} (%) on {setting.data}, {setting.network}"
    title = f"{outcome.row.name} at scale {outcome.scale}: {what}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("arm", overflow="fold", ratio=1)
    for name in _NUMBERS:
        table.add_column(name, justify="right", no_wrap=True)
    for line in outcome.lines:
        table.add_row(
            Text(line.arm.title),
            "" if line.paper is None else f"{line.paper:.2f}",
            score_text(line),
            str(0 if line.score is None else line.score.n),
            "" if line.frames is None else count_text(line.frames),
            "" if line.ms is None else f"{line.ms:.3g}",
            minutes_text(line.search_minutes),
        )
    return table
