"""A figure of an experiment with its table, as Markdown, as a section of a page, and as JSON values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, TypeVar

from image2video.clip.any_clip import parse_clip
from image2video.errors import InputError
from image2video.protocols import Progress
from image2video.report.page import Section, figure_html, table_html
from image2video.reproduce.book import Book, Run
from image2video.reproduce.genotypes import Chosen

Seen = TypeVar("Seen")


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
            parts += [f"![{one_line(self.title)}]({file})", self.caption]
        if self.lines:
            parts.append(markdown_table(self.columns, self.lines, self.numbers))
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


def finished(run: Run, book: Book) -> tuple[Chosen | None, Path]:
    """The genotype of a run, and the file of its last weights.

    Raises `InputError` where it has not run, has failed, or its weights are not there.
    """
    record = book.read(run)
    if record is None:
        raise InputError("it has not run; run it first")
    if "error" in record:
        raise InputError(f"it failed: {record['error']}")
    path = book.weights_path(run)
    if not path.is_file():
        raise InputError(
            f"its weights are not there ({path}); without --report-only and --rows the same command makes them again"
        )
    genotype = record["genotype"]
    return None if genotype is None else Chosen(parse_clip(genotype), record["origin"]), path


def look_at(
    runs: Sequence[Run], look: Callable[[Run], Seen], progress: Progress | None, *, stage: str, missing: str
) -> tuple[dict[str, Seen], list[str]]:
    """What `look` finds of every run, by the title of its arm, and what is missing: `missing of ARM: why`."""
    found: dict[str, Seen] = {}
    gaps: list[str] = []
    for number, run in enumerate(runs):
        if progress is not None:
            progress(stage, number, len(runs))
        try:
            found[run.arm.title] = look(run)
        except Exception as error:  # one network must not cost the others their part of the figure
            gaps.append(f"{missing} of {run.arm.title!r}: {error}")
    if progress is not None:
        progress(stage, len(runs), len(runs))
    return found, gaps


def markdown_table(columns: Sequence[str], lines: Sequence[Sequence[str]], numbers: Sequence[int]) -> str:
    """A table in Markdown; the columns `numbers` stand to the right."""
    ruler = ["---:" if place in numbers else "---" for place in range(len(columns))]
    rows = []
    for cells in (columns, ruler, *lines):
        rows.append("| " + " | ".join(one_line(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def one_line(text: str) -> str:
    """A text without line breaks and double spaces."""
    return " ".join(text.split())
