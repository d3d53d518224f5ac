"""The receptive fields of one network, bare and wrapped: a table for the terminal and a self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.table import Table

from image2video.report.erf_panel import COLUMNS, ErfGrid
from image2video.report.page import Section, document, facts_list, figure_html, table_html, write_page
from image2video.report.receptive_field import erf_figure

READING = (
    "Half in, 99 % in: the least number of pixels that holds this share of the gradient. × bare: that of a half, over "
    "the bare network's. σ: standard deviation of the field, mean of its two main axes. Axes: the longer standard "
    "deviation over the shorter one, with the angle of the longer one, counter-clockwise, where they differ by more "
    "than two standard errors and 2 %. ±: one standard error over the images; the weights are one draw."
)
_NUMBERS = (2, 3, 4, 5)
EXPECTED = ("unit", "network", "σ, px", "expected", "axes", "expected", "gradient by frame")
_EXPECTED_NOTE = (
    "Expected: the bare network's field, mapped back to the image from every frame and added up by the frames' "
    "shares of the gradient. A unit of one frame looks at the same place of every frame, so that shifts show. "
    "Averaged maps are unwarped first: without fusion they look at one place of the image, and only turns and "
    "zooms show; with it, shifts do too, by the shares of the unit above."
)


@dataclass(frozen=True)
class FieldReport:
    """What `rf.html` shows: the measured fields, what theory says of them, and how they were measured.

    Attributes:
        title: of the page.
        grid: the measured fields, a row per unit.
        theory: sentences on the theoretical field.
        expected: measured numbers beside those that theory expects, in the order of `EXPECTED`.
        facts: settings, machine and time, as terms and values.
    """

    title: str
    grid: ErfGrid
    theory: str
    expected: Sequence[tuple[str, ...]]
    facts: Mapping[str, object]


def write_field_page(
    path: str | Path, report: FieldReport, *, fields: Figure | None = None, film: Figure | None = None
) -> Path:
    """Write the page of the receptive fields of one network.

    Args:
        path: of the file.
        report: what the page shows.
        fields: a `fields_figure` of the clip.
        film: a `film_figure` of an image.

    Returns:
        The path.
    """
    return write_page(path, field_page_html(report, fields=fields, film=film))


def field_page_html(report: FieldReport, *, fields: Figure | None = None, film: Figure | None = None) -> str:
    """The page as one HTML document."""
    sections = [Section("Effective receptive fields", fields_html(report.grid))]
    theory = f"<p>{escape(report.theory)}</p>"
    if fields is not None:
        text = (
            "The same region of every frame covers other content of the image (the letter). Last: the frames' regions "
            "mapped back; the darker, the more frames cover it."
        )
        theory += figure_html(fields, text)
    if report.expected:
        theory += table_html(EXPECTED, report.expected, numbers=(2, 3))
        theory += f'<p class="note">{escape(_EXPECTED_NOTE)}</p>'
    sections.append(Section("What theory says", theory))
    if film is not None:
        text = "The clip of the first image; the outline is the image's border in each frame."
        sections.append(Section("The clip", figure_html(film, text, picture=True)))
    sections.append(Section("How this was measured", facts_list(report.facts)))
    return document(report.title, report.grid.sentences(), sections)


def fields_html(grid: ErfGrid) -> str:
    """The figure, its caption, the table, and how to read it.

    Args:
        grid: the measured fields.

    Returns:
        HTML for a section.
    """
    figure = figure_html(erf_figure(grid.rows), grid.caption, picture=True)
    table = table_html(COLUMNS, list(grid.lines()), numbers=_NUMBERS)
    return f'{figure}{table}<p class="note">{escape(READING)}</p>'


def field_tables(grid: ErfGrid) -> list[Table]:
    """The measured numbers for a terminal of 80 columns, without the area of 99 %.

    Args:
        grid: the measured fields.

    Returns:
        A table per unit.
    """
    tables: dict[str, Table] = {}
    shown = [index for index, name in enumerate(COLUMNS) if index > 0 and not name.startswith("99")]
    for line in grid.lines():
        unit = line[0]
        if unit not in tables:
            table = tables[unit] = Table(title=unit, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
            for index in shown:
                table.add_column(COLUMNS[index], justify="right" if index in _NUMBERS else "left", no_wrap=True)
        tables[unit].add_row(*(line[index] for index in shown))
    return list(tables.values())
