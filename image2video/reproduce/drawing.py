"""A figure of an experiment with its table, as Markdown, as a section of a page, and as JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from image2video.errors import InputError
from image2video.report.page import Section, figure_html, table_html
from image2video.reproduce.book import Book, Run


@dataclass(frozen=True)
class Drawing:
    """What is drawn after the runs of a row, or without any.

    Attributes:
        title: of its section.
        figure: of matplotlib; None where nothing can be drawn yet, which `gaps` explain.
        caption: what the figure shows.
        columns, lines: a table of texts; `numbers` are the columns that hold numbers.
        headlines: sentences that stand at the top of the page.
        notes: how to read figure and table.
        gaps: what is missing, and why.
        record: the figures as JSON values.
        picture: whether the figure is a picture rather than lines.

    """

    title: str
    figure: Any
    caption: str = ""
    columns: tuple[str, ...] = ()
    lines: tuple[tuple[str, ...], ...] = ()
    numbers: tuple[int, ...] = ()
    headlines: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    gaps: tuple[str, ...] = ()
    record: dict[str, Any] = field(default_factory=dict)
    picture: bool = False

    def markdown(self, file: str) -> list[str]:
        """Its paragraphs; `file` is the figure's, beside the text."""
        parts = [f"## {self.title}"]
        if self.figure is not None:
            parts += [f"![{_plain(self.title)}]({file})", self.caption]
        if self.lines:
            ruler = ["---:" if i in self.numbers else "---" for i in range(len(self.columns))]
            parts.append("\n".join(_row(cells) for cells in (self.columns, ruler, *self.lines)))
        parts += ["\n".join(f"- {text}" for text in self.headlines), *self.notes, *self.gaps]
        return parts

    def section(self) -> Section:
        """Its part of a page, without the headlines."""
        body = "" if self.figure is None else figure_html(self.figure, self.caption, picture=self.picture)
        if self.lines:
            body += table_html(self.columns, self.lines, numbers=self.numbers)
        body += "".join(f'<p class="note">{escape(text)}</p>' for text in self.notes)
        body += "".join(f"<p>{escape(text)}</p>" for text in self.gaps)
        return Section(self.title, body)


def finished(run: Run, book: Book) -> tuple[dict[str, Any], Path]:
    """The record of a run and the file of its last weights.

    Raises `InputError` where it has not run, has failed, or its weights are not there.
    """
    record = book.read(run)
    if record is None or "error" in record:
        raise InputError("it has not run" if record is None else f"it failed: {record['error']}")
    path = book.weights_path(run)
    if not path.is_file():
        raise InputError(f"its weights are not there ({path}); without --report-only the same command makes them again")
    return record, path


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_plain(cell).replace("|", "\\|") for cell in cells) + " |"


def _plain(text: str) -> str:
    return " ".join(text.split())
