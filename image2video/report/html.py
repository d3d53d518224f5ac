"""One HTML file with everything in it: no scripts, no fonts, no address of another file."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from image2video.files import atomic_write_bytes
from image2video.report.cell import cell_figure
from image2video.report.curves import learning_figure, scores_figure, tau_figure
from image2video.report.result import ComparisonResult, SearchRecord
from image2video.report.style import data_uri, png_bytes, svg_text
from image2video.report.table import count_text, genotype_text, html_table
from image2video.report.verdict import html_verdicts, verdict_sentence

_SVG = "image/svg+xml"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1060px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.2em; margin-top: 2em; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; font-size: 0.87em; width: 100%; }
th, td { padding: 0.3em 0.6em; text-align: left; border-bottom: 1px solid #e5e5e5; vertical-align: top; }
thead th { border-bottom: 2px solid #888; } tr.group th { background: #f4f4f4; }
td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td.genotype, code { font-family: ui-monospace, monospace; font-size: 0.93em; }
tr.ahead td:last-child { font-weight: bold; color: #00507d; }
tr.behind td:last-child { font-weight: bold; color: #a04000; }
p.verdict { background: #f4f7fa; border-left: 4px solid #0072B2; padding: 0.7em 1em; }
figure { margin: 1em 0; } img { max-width: 100%; } figcaption, p.note { color: #555; font-size: 0.87em; }
dl { display: grid; grid-template-columns: max-content auto; gap: 0.1em 1em; font-size: 0.87em; } dd { margin: 0; }
dl.facts { grid-template-columns: repeat(2, max-content auto); }
"""


@dataclass(frozen=True)
class Section:
    """A heading with its HTML body."""

    title: str
    body: str


def write_report(path: str | Path, result: ComparisonResult, *, film: Figure | None = None) -> Path:
    """Write the report of `result` to `path` and return it; `film` is the strip of sample images (`film_figure`)."""
    path = Path(path)
    atomic_write_bytes(path, report_html(result, film=film).encode())
    return path


def report_html(result: ComparisonResult, *, film: Figure | None = None) -> str:
    """The report as one HTML document; figures are base64 SVG, pictures base64 PNG."""
    sections = [Section("Accuracy and cost", _accuracy(result))]
    if any(point.holdout is not None for arm in result.arms for run in arm.runs for point in run.curve):
        sections.append(
            Section("Learning curves", _figure(learning_figure(result), "Mean over seeds; thin: single seeds."))
        )
    if film is not None:
        text = (
            "The clip that the network sees, one image per row. The outline is the border of the image in each frame."
        )
        sections.append(Section("From image to clip", _figure(film, text, picture=True)))
    if result.search is not None:
        sections.extend(_search(result.search))
    if result.fixed_weights:
        sections.append(Section("Genotypes for trained weights", _rankings(result)))
    sections.append(Section("How this was made", _setup(result)))
    body = "".join(f"<h2>{escape(section.title)}</h2>{section.body}" for section in sections)
    title = escape(result.title)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body>"
        f'<h1>{title}</h1><p class="verdict">{escape(verdict_sentence(result))}</p>{body}</body></html>\n'
    )


def _figure(figure: Figure, caption: str, *, picture: bool = False) -> str:
    """A figure as an embedded image with its caption, which is also its alternative text; `picture` as PNG."""
    source = data_uri(png_bytes(figure, dpi=192), "image/png") if picture else data_uri(svg_text(figure), _SVG)
    width = round(figure.get_figwidth() * 96)
    text = escape(caption)
    return f'<figure><img src="{source}" width="{width}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def _accuracy(result: ComparisonResult) -> str:
    """The two tables and how to read them."""
    test = result.data.get("test")
    step = f" One test image is {100 / test:.2f} points." if test else ""
    return (
        html_table(result)
        + f'<p class="note">Top-1 on {test or "the"} test images, mean ± half of the 95 % interval (Student t, n '
        f"seeds).{step} MACs and ms are for one image, all its frames included. Training frames are images × frames "
        "that went forward and backward, those of the network that an arm starts from included; the search comes on "
        "top and is listed below. The test set decided nothing.</p><h3>Which differences are decided?</h3>"
        + html_verdicts(result)
        + '<p class="note">Differences are paired by seed. “Undecided” means that the interval holds 0, '
        "or that there is none: the seeds at hand do not tell the arms apart, which is not to say that they are equal. "
        "Each interval is at 95 % by itself and speaks of the spread between seeds on these test images.</p>"
    )


def _search(search: SearchRecord) -> list[Section]:
    """The cell, τ over time, and the scores, with the genotype that was chosen."""
    intro = (
        f"<p>Chosen genotype: <code>{escape(genotype_text(search.genotype))}</code>, from the space "
        f"<code>{escape(search.space)}</code> ({count_text(search.frames)} frames, {search.seconds:.0f} s).</p>"
    )
    text = (
        "The search cell after its last epoch. The width of an edge is its largest softmax weight τ; “kept” is the op "
        "that the selection chose. Black: the path that became the genotype."
    )
    sections = [Section("The search", intro + _figure(cell_figure(search), text))]
    text = "Softmax weights of every edge over the search, one scale for all; dotted: equal weights. Bold: the path."
    sections.append(Section("τ over time", _figure(tau_figure(search), text)))
    if any(value is not None for row in search.drops for value in row):
        text = (
            "Held-out accuracy (points) that masking one op on one edge costs. The op whose removal hurts most is kept "
            "(framed); edges of the path are bold."
        )
        sections.append(Section("Perturbation scores", _figure(scores_figure(search), text)))
    return sections


def _rankings(result: ComparisonResult) -> str:
    """What a ranking on held-out images said for each trained network."""
    rows = "".join(
        f"<dt>{escape(start)}</dt><dd>{escape(genotype_text(str(record.get('sentence', record.get('best', '')))))}</dd>"
        for start, record in result.fixed_weights.items()
    )
    note = "Nothing was trained for these: chains were ranked by held-out accuracy of the averaged predictions."
    return f'<p class="note">{note}</p><dl>{rows}</dl>'


def _setup(result: ComparisonResult) -> str:
    """Data, settings, machine and time as a list of terms."""
    facts: dict[str, object] = {"network": result.model}
    facts |= {f"data: {key}": value for key, value in result.data.items()}
    facts |= {key: value for key, value in result.settings.items() if key not in ("data", "model")}
    facts |= result.environment
    facts["training frames in all"] = f"{result.frames:,}".replace(",", " ")
    facts["time"] = f"{result.seconds:.0f} s"
    items = "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(_plain(v))}</dd>" for k, v in facts.items())
    return f'<dl class="facts">{items}</dl>'


def _plain(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "default" if value is None else str(value)
