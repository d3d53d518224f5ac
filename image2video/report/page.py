"""One HTML file with everything in it: no scripts, no fonts, no address of another file."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from image2video.report.style import data_uri, png_bytes, svg_text
from image2video.runs.folders import atomic_write_text

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1060px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.2em; margin-top: 2em; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; font-size: 0.87em; width: 100%; }
th, td { padding: 0.3em 0.6em; text-align: left; border-bottom: 1px solid #e5e5e5; vertical-align: top; }
thead th { border-bottom: 2px solid #888; } tr.group th { background: #f4f4f4; }
th.number { text-align: right; }
td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td.genotype, code { font-family: ui-monospace, monospace; font-size: 0.93em; }
tr.ahead td:last-child { font-weight: bold; color: #00507d; }
tr.behind td:last-child { font-weight: bold; color: #a04000; }
p.verdict { background: #f4f7fa; border-left: 4px solid #0072B2; padding: 0.7em 1em; }
figure { margin: 1em 0; } img { max-width: 100%; } figcaption, p.note { color: #555; font-size: 0.87em; }
dl { display: grid; grid-template-columns: max-content auto; gap: 0.1em 1em; font-size: 0.87em; } dd { margin: 0; }
dl.facts { grid-template-columns: repeat(2, max-content auto); }
div.wide { overflow-x: auto; }
@media (max-width: 600px) { body { margin: 1em auto; } dl, dl.facts { display: block; } dd { margin: 0 0 0.5em 1em; }
  figure img { max-width: 560px; } }
"""


@dataclass(frozen=True)
class Section:
    """A heading with its HTML body."""

    title: str
    body: str


def document(title: str, verdicts: Sequence[str], sections: Sequence[Section]) -> str:
    """The page: its title, what it found (a framed paragraph each), and the sections."""
    body = sections_html(sections)
    found = "".join(f'<p class="verdict">{escape(text)}</p>' for text in verdicts)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>{found}{body}</body></html>\n"
    )


def sections_html(sections: Sequence[Section]) -> str:
    """The sections, one below the other."""
    return "".join(f"<h2>{escape(section.title)}</h2>{section.body}" for section in sections)


def write_page(path: str | Path, html: str) -> Path:
    """Write a page, whole or not at all, and return its path."""
    path = Path(path)
    atomic_write_text(path, html)
    return path


def figure_html(figure: Figure, caption: str, *, picture: bool = False) -> str:
    """A figure as an embedded image with its caption, which is also its alternative text; `picture` as PNG.

    On a phone it scrolls as tables do: as wide as the screen its letters would be too small to read.
    """
    if picture:
        source = data_uri(png_bytes(figure, dpi=192), "image/png")
    else:
        source = data_uri(svg_text(figure), "image/svg+xml")
    width = round(figure.get_figwidth() * 96)
    text = escape(caption)
    image = f'<img src="{source}" width="{width}" alt="{text}">'
    return f'<figure><div class="wide">{image}</div><figcaption>{text}</figcaption></figure>'


def table_html(columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[int] = ()) -> str:
    """A table of texts, which scrolls where it is wider than the page; the columns `numbers` are right-aligned."""
    head = cells_html("th", columns, numbers)
    return wide_table(head, "".join(f"<tr>{cells_html('td', row, numbers)}</tr>" for row in rows))


def wide_table(head: str, body: str) -> str:
    """A table of the cells of its head and the rows of its body, which scrolls where it is wider than the page."""
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def cells_html(tag: str, texts: Sequence[str], numbers: Collection[int]) -> str:
    """The cells of one row; those at the positions `numbers` are right-aligned."""
    return "".join(
        f"<{tag}{' class=number' if index in numbers else ''}>{escape(text)}</{tag}>"
        for index, text in enumerate(texts)
    )


def facts_list(facts: Mapping[str, object]) -> str:
    """Terms and their values in two columns; None reads `default`."""
    items = "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(_plain(v))}</dd>" for k, v in facts.items())
    return f'<dl class="facts">{items}</dl>'


def _plain(value: object) -> str:
    """A value as a reader expects it."""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "default" if value is None else str(value)
