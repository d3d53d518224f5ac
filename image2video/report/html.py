"""The report of a comparison as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from image2video.report.cell import cell_figure
from image2video.report.curves import learning_figure, scores_figure, tau_figure
from image2video.report.erf_panel import ErfGrid
from image2video.report.field_page import fields_html
from image2video.report.page import Section, document, facts_list, figure_html, sections_html, write_page
from image2video.report.result import ComparisonResult, SearchRecord
from image2video.report.table import count_text, genotype_text, html_table, metric_name
from image2video.report.verdict import html_verdicts, verdict_sentence


@dataclass(frozen=True)
class Opening:
    """What a report tells first; the comparison stands folded behind it.

    Attributes:
        title: of the page.
        sentences: what was found.
        sections: the parts of the page.
        folded: what the comparison is called where it is folded away.
    """

    title: str
    sentences: Sequence[str]
    sections: Sequence[Section]
    folded: str


def write_report(
    path: str | Path, result: ComparisonResult, *, film: Figure | None = None, opening: Opening | None = None
) -> Path:
    """Write the report of a comparison.

    Args:
        path: of the file.
        result: the comparison.
        film: the strip of sample images (`film_figure`).
        opening: what is told first; None for nothing.

    Returns:
        The path.
    """
    return write_page(path, report_html(result, film=film, opening=opening))


def report_html(result: ComparisonResult, *, film: Figure | None = None, opening: Opening | None = None) -> str:
    """The report of a comparison as one HTML document; figures are base64 SVG, pictures base64 PNG.

    Args:
        result: the comparison.
        film: the strip of sample images (`film_figure`).
        opening: what is told first, with the comparison folded behind it; None for nothing.

    Returns:
        The document.
    """
    sections = _sections(result, film)
    if opening is None:
        return document(result.title, [verdict_sentence(result)], sections)
    body = sections_html([Section(result.title, f"<p>{escape(verdict_sentence(result))}</p>"), *sections])
    folded = Section(opening.folded, f"<details><summary>Show it</summary>{body}</details>")
    return document(opening.title, opening.sentences, [*opening.sections, folded])


def _sections(result: ComparisonResult, film: Figure | None) -> list[Section]:
    """The parts of a comparison's report."""
    sections = [Section("Accuracy and cost", accuracy_html(result))]
    if any(point.holdout is not None for arm in result.arms for run in arm.runs for point in run.curve):
        curves = figure_html(learning_figure(result), "Mean over seeds; thin: single seeds.")
        sections.append(Section("Learning curves", curves))
    if film is not None:
        text = (
            "The clip that the network sees, one image per row. The outline is the border of the image in each frame."
        )
        sections.append(Section("From image to clip", figure_html(film, text, picture=True)))
    if result.fields:
        sections.append(Section("Receptive fields", _fields(result)))
    if result.search is not None:
        sections.extend(search_sections(result.search))
    if result.fixed_weights:
        sections.append(Section("Genotypes for trained weights", _rankings(result)))
    sections.append(Section("How this was made", _setup(result)))
    return sections


def accuracy_html(result: ComparisonResult) -> str:
    """The two tables and how to read them."""
    test, metric = result.data.get("test"), escape(metric_name(result))
    step = f" One test image is {100 / test:.2f} points." if test and "metric" not in result.data else ""
    return (
        html_table(result)
        + f'<p class="note">Figures: {metric} on {test or "the"} test images, mean ± half of the 95 % interval '
        f"(Student t, n seeds).{step} MACs and ms are for one image, all its frames included; ms is the median "
        "over all trainings of one network with one clip, measured in turn with them, and in brackets its range. "
        "Training frames are "
        "images × frames that went forward and backward, those of the network that an arm starts from included; the "
        "search comes on top and is listed below. The test set decided nothing.</p>"
        "<h3>Which differences are decided?</h3>"
        + html_verdicts(result)
        + '<p class="note">Differences are paired by seed. “Undecided” means that the interval holds 0, '
        "or that there is none: the seeds at hand do not tell the arms apart, which is not to say that they are equal. "
        "Each interval is at 95 % by itself and speaks of the spread between seeds on these test images; where several "
        "random clips stand on one side, it holds both spreads, that between seeds and that between clips.</p>"
    )


def search_sections(search: SearchRecord, place: str = "") -> list[Section]:
    """The cell, τ over time, and the scores, with the genotype that was chosen.

    Args:
        search: the cell.
        place: where in a network it is; empty for the only one.
    """
    where = f" at {place}" if place else ""
    what = "Chosen chain" if place else "Chosen genotype"
    intro = (
        f"<p>{what}{escape(where)}: <code>{escape(genotype_text(search.genotype))}</code>, from the space "
        f"<code>{escape(search.space)}</code> ({count_text(search.frames)} frames, {search.seconds:.0f} s).</p>"
    )
    text = (
        "The search cell after its last epoch. The width of an edge is its largest softmax weight τ; “kept” is the op "
        "that the selection chose. Black: the path that became the genotype."
    )
    sections = [Section(f"The cell{where}" if place else "The search", intro + figure_html(cell_figure(search), text))]
    text = "Softmax weights of every edge over the search, one scale for all; dotted: equal weights. Bold: the path."
    sections.append(Section(f"τ over time{where}", figure_html(tau_figure(search), text)))
    if any(value is not None for row in search.drops for value in row):
        text = (
            f"Points of held-out {search.metric} that masking one op on one edge costs. Framed: the op that was kept, "
            "whose removal hurts most by the search's criterion. Edges of the path are bold."
        )
        sections.append(Section(f"Perturbation scores{where}", figure_html(scores_figure(search), text)))
    return sections


def _fields(result: ComparisonResult) -> str:
    """The receptive fields of the trained networks side by side, or why they are not there."""
    parts = []
    if "rows" in result.fields:
        grid = ErfGrid.from_record(result.fields)
        parts += [f"<p>{escape(sentence)}</p>" for sentence in grid.sentences()]
        parts.append(fields_html(grid))
    parts += [f'<p class="note">Not measured: {escape(str(error))}</p>' for error in result.fields.get("errors", [])]
    return "".join(parts)


def _rankings(result: ComparisonResult) -> str:
    """What a ranking on held-out images said for each trained network."""
    rows = ""
    for start, record in result.fixed_weights.items():
        sentence = str(record.get("sentence", record.get("best", "")))
        rows += f"<dt>{escape(start)}</dt><dd>{escape(genotype_text(sentence))}</dd>"
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
    return facts_list(facts)
