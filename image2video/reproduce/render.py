"""A table as Markdown, HTML, JSON and figures: the paper's number, ours with its interval, and the cost."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from image2video.report import Contrast, Verdict, depth_figure, verdicts
from image2video.report.arms import arms_figure
from image2video.report.page import Section, document, figure_html, table_html
from image2video.report.style import png_bytes, svg_text
from image2video.report.table import count_text, genotype_text
from image2video.reproduce.drawing import Drawing, markdown_table, one_line
from image2video.reproduce.gains import row_curves, row_gains
from image2video.reproduce.learned import ranges_text
from image2video.reproduce.outcome import Line, RowOutcome
from image2video.reproduce.render_measures import COLUMNS as MEASURE_COLUMNS
from image2video.reproduce.render_measures import (
    GAP_COLUMNS,
    gap_cells,
    gap_phrase,
    gaps_record,
    labelled_images,
    measure_cells,
    measure_note,
    measured,
)
from image2video.reproduce.spec import Experiment
from image2video.runs.folders import atomic_write_bytes, atomic_write_json, atomic_write_text
from image2video.version import __version__

COLUMNS = (
    "arm",
    "genotype or policy",
    "paper",
    "ours",
    "n",
    "epochs",
    "images seen",
    "frames",
    "MACs / image",
    "ms / image",
    "peak MiB / image",
    "search min",
)
SCALE_NOTES = {
    "smoke": "Smoke scale: whether everything runs. The figures mean nothing.",
    "converged": (
        "Converged scale: trained networks, and networks trained so long that more training gains little; where bare "
        "networks of two lengths are compared, the gain is among the questions."
    ),
    "cpu": (
        "CPU scale: a small network, few images, short runs. Short runs cannot settle equal compute: they say that "
        "longer training helps, which is known."
    ),
}
"""What a reader must know of a scale before any number."""

_ONE_SEARCH = (
    ": this holds for the one clip that one search found, since the interval covers trainings and random draws, and "
    "not the spread between searches"
)
"""What is said of a searched clip against random ones, since all seeds of a row share one search."""


def cells(line: Line) -> tuple[str, ...]:
    """One arm as text, in the order of `COLUMNS`."""
    return (
        line.arm.title,
        _what(line),
        "" if line.paper is None else f"{line.paper:.2f}",
        score_text(line),
        str(0 if line.score is None else line.score.n),
        "" if line.epochs is None else f"{round(line.epochs, 2):g}",
        _count(line.images_seen),
        _count(line.frames),
        _count(line.macs),
        "" if line.ms is None else f"{line.ms:.3g}",
        "" if line.peak_mib is None else f"{line.peak_mib:.3g}",
        minutes_text(line.search_minutes),
    )


def _what(line: Line) -> str:
    """The genotype, policy or ranges of an arm; how many where its seeds have different ones."""
    found = [genotype_text(text) for text in line.genotypes] + list(line.policies)
    if line.widths:
        found.append(ranges_text(line.widths))
    if len(found) != 1:
        return f"{len(found)} different" if found else ""
    own = [] if line.arm.T is None else [f"T = {line.arm.T}"]
    if line.arm.schedule is not None:
        own.append(line.arm.schedule)
    return ", ".join([*found, *own])


def minutes_text(minutes: float | None) -> str:
    """`7.3`; nothing where nothing was searched for."""
    if not minutes:
        return ""
    return f"{minutes:.1f}" if minutes >= 0.1 else "<0.1"


def heading(outcome: RowOutcome) -> str:
    """A row's name, with the data and the network that stand in for it at this scale."""
    setting = outcome.setting
    return f"{outcome.row.name} ({outcome.scale}: {setting.data}, {setting.network})"


def score_text(line: Line) -> str:
    """`94.31 ± 0.22`, the half width of the 95 % interval; one seed stands alone, failures are said."""
    if line.score is None:
        return "failed" if line.errors else "not run"
    text = f"{line.score.mean:.2f}"
    if line.score.n > 1:
        text += f" ± {line.score.half_width:.2f}"
    return f"{text} ({len(line.errors)} failed)" if line.errors else text


def sentences(outcome: RowOutcome, *, headline: bool = False) -> list[str]:
    """What a row's paired differences say; `headline`: only the questions that the table is there for."""
    asked = [one for one in verdicts(outcome.result) if one.contrast.headline or not headline]
    found = [_phrase(one, outcome) for one in asked]
    return [f"{text[0].upper()}{text[1:]}." for text in found]


def _phrase(verdict: Verdict, outcome: RowOutcome) -> str:
    """The answer to a question: over seeds, or over the test images where nothing was trained."""
    gap = outcome.gap(verdict.contrast.a, verdict.contrast.b)
    if gap is not None and not gap.trained:
        return gap_phrase(verdict, gap)
    return verdict.phrase() + (_ONE_SEARCH if _asks_for_search(verdict.contrast, outcome) else "")


def _asks_for_search(contrast: Contrast, outcome: RowOutcome) -> bool:
    """Whether a searched clip is put against random ones."""
    found, drawn = _words(contrast.a, outcome), _words(contrast.b, outcome)
    return bool(found and drawn) and found <= {"searched"} and drawn <= {"random"}


def _words(side: str, outcome: RowOutcome) -> set[str]:
    """What the arms of one side of a contrast say of where their genotypes come from."""
    arms = [line.arm for line in outcome.lines if side in (line.arm.name, line.arm.pool)]
    return {arm.genotype.partition(":")[0].partition("@")[0] for arm in arms}


def gaps(outcome: RowOutcome) -> list[str]:
    """The failed runs with their errors, and how many runs are missing."""
    found = []
    for line in outcome.lines:
        found += [one_line(f"Failed: {line.arm.title}, {error}") for error in line.errors]
    missing = sum(line.missing for line in outcome.lines)
    if missing:
        found.append(f"{missing} runs are missing.")
    return found


def caption(outcome: RowOutcome) -> str:
    """What the numbers of a row are."""
    setting = outcome.setting
    if not setting.trains:
        return (
            f"{outcome.row.metric} in percent on {labelled_images(outcome)}. {setting.network} as its published "
            f"weights are: nothing is trained. T = {setting.T}. "
            "MACs, time and memory are per image, all frames included."
        )
    images = "all" if setting.train_images is None else f"{setting.train_images:,}"
    part, length, size, more = "test set of {}, last epoch", f"epochs = {setting.epochs}", "", ""
    if setting.config is not None:
        part, length = "test split of {}, last checkpoint", "the steps of the config"
        length = f"{setting.steps:,} steps" if setting.steps else length
        size, more = " of the crop's size", " (IoU by class: in the JSON file)"
    return (
        f"{outcome.row.metric} in percent on the {part.format(setting.data)}; {setting.network}, {images} labelled "
        f"images ({setting.holdout:.0%} of them held out for choices), T = {setting.T}, {length}; mean ± 95 % interval "
        f"over n seeds{more}. Epochs, images seen and frames are those of training, with those of the weights that an "
        f"arm starts from; MACs, time and memory are per image{size}, all frames included."
    )


def machines(outcome: RowOutcome) -> list[str]:
    """What the runs of a row were made with, one text per environment."""
    found = []
    for made in outcome.environments:
        text = f"image2video {made['image2video']}, torch {made['torch']}, {made['device']}, threads: {made['threads']}"
        found.append(f"{text}, {made['processes']} processes" if "processes" in made else text)
    return found


def markdown(experiment: Experiment, scale: str, rows: Sequence[RowOutcome], drawings: Sequence[Drawing] = ()) -> str:
    """The whole table as Markdown, what was drawn for it first."""
    parts = [f"# {experiment.title}", f"{experiment.source}. {scale_note(scale, rows)}", experiment.notes]
    for number, drawing in enumerate(drawings, 1):
        parts += drawing.markdown(f"{experiment.name}-{scale}{_suffix(number)}.png")
    for outcome in rows:
        parts += [f"## {heading(outcome)}", caption(outcome)]
        numbers = range(2, len(COLUMNS))
        parts.append(markdown_table(COLUMNS, [cells(line) for line in outcome.lines], numbers))
        if measured(outcome):
            parts += _measures_markdown(
                outcome, f"{experiment.name}-{scale}-gains{_suffix(rows.index(outcome) + 1)}.png"
            )
        else:
            parts.append("\n".join(f"- {text}" for text in sentences(outcome)))
        parts += gaps(outcome)
        parts += [f"Made with {text}." for text in machines(outcome)]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def _measures_markdown(outcome: RowOutcome, file: str) -> list[str]:
    """The measures of a row, its gaps, and the figure of them, which is `file`, beside the text."""
    lines = [measure_cells(line) for line in measured(outcome)]
    parts = [markdown_table(MEASURE_COLUMNS, lines, range(2, len(MEASURE_COLUMNS)))]
    gaps_found = gap_cells(outcome)
    if gaps_found:
        parts.append(markdown_table(GAP_COLUMNS, gaps_found, range(3, len(GAP_COLUMNS))))
    if row_gains(outcome) is not None:
        parts.append(f"![Gains against cost]({file})")
    if row_curves(outcome) is not None:
        parts.append(f"![Held-out accuracy of the bare networks]({file.replace('-gains', '-curves')})")
    return [*parts, measure_note(outcome)]


def html(experiment: Experiment, scale: str, rows: Sequence[RowOutcome], drawings: Sequence[Drawing] = ()) -> str:
    """The whole table as one HTML page, the figures inside."""
    about = f"{experiment.source}. {scale_note(scale, rows)} {experiment.notes}"
    sections = [Section("About", f"<p>{escape(about)}</p>"), *(drawing.section() for drawing in drawings)]
    over = overview(experiment, rows)
    if over is not None:
        sections.append(Section("Over the rows", figure_html(over, "Mean over seeds with its 95 % interval.")))
    sections += [_section(outcome) for outcome in rows]
    return document(experiment.title, _headlines(rows, drawings), sections)


def _headlines(rows: Sequence[RowOutcome], drawings: Sequence[Drawing]) -> list[str]:
    """The sentences at the top of the page; why there are none where nothing is finished."""
    found: list[str] = []
    for drawing in drawings:
        found += drawing.headlines
    for outcome in rows:
        found += [f"{heading(outcome)}: {text}" for text in sentences(outcome, headline=True)]
    if found:
        return found
    if any(outcome.started for outcome in rows):
        return ["No headline comparison has both of its arms finished."]
    return ["Nothing is finished yet."]


def _section(outcome: RowOutcome) -> Section:
    """The part of the page that shows one row."""
    body = table_html(COLUMNS, [cells(line) for line in outcome.lines], numbers=range(2, len(COLUMNS)))
    body += f'<p class="note">{escape(caption(outcome))}</p>'
    if outcome.started:
        body += figure_html(_arms(outcome), f"{heading(outcome)}: mean, 95 % interval and seeds.")
    if measured(outcome):
        lines = [measure_cells(line) for line in measured(outcome)]
        body += table_html(MEASURE_COLUMNS, lines, numbers=range(2, len(MEASURE_COLUMNS)))
        body += table_html(GAP_COLUMNS, gap_cells(outcome), numbers=range(3, len(GAP_COLUMNS)))
        body += f'<p class="note">{escape(measure_note(outcome))}</p>'
        gains = row_gains(outcome)
        if gains is not None:
            body += figure_html(gains, f"{heading(outcome)}: gains over the bare network at equal compute.")
        curves = row_curves(outcome)
        if curves is not None:
            body += figure_html(curves, "Bare networks: held-out accuracy over the training; thin: single seeds.")
    items = "".join(f"<li>{escape(text)}</li>" for text in sentences(outcome))
    if items:
        body += f"<ul>{items}</ul>"
    body += "".join(f"<p>{escape(text)}</p>" for text in gaps(outcome))
    body += "".join(f'<p class="note">Made with {escape(text)}.</p>' for text in machines(outcome))
    return Section(heading(outcome), body)


def scale_note(scale: str, rows: Sequence[RowOutcome]) -> str:
    """What a reader must know of the scale; nothing where there are no rows, and so no scale."""
    return SCALE_NOTES.get(scale, "") if rows else ""


def write(
    experiment: Experiment,
    scale: str,
    rows: Sequence[RowOutcome],
    out: str | Path,
    drawings: Sequence[Drawing] = (),
) -> dict[str, Path]:
    """Write NAME-SCALE.md, .html, .json, and figures as .png and .svg, into a folder; gives the files by kind.

    The figure of the n-th row, from the second on, is NAME-SCALE-n, that over all rows NAME-SCALE-all, that of a
    measured row's gains NAME-SCALE-gains, that of its bare networks' training NAME-SCALE-curves. Where something
    is drawn, that has these names, and the scores of the rows are NAME-SCALE-scores, NAME-SCALE-scores-2, ….
    """
    stem = Path(out) / f"{experiment.name}-{scale}"
    files = {kind: stem.with_name(f"{stem.name}.{kind}") for kind in ("md", "html", "json")}
    atomic_write_text(files["md"], markdown(experiment, scale, rows, drawings))
    atomic_write_text(files["html"], html(experiment, scale, rows, drawings))
    atomic_write_json(files["json"], record(experiment, scale, rows, drawings))
    scores = "-scores" if drawings else ""
    figures = {scores + _suffix(n): _arms(outcome) for n, outcome in enumerate(rows, 1) if outcome.started}
    figures |= {_suffix(n): one.figure for n, one in enumerate(drawings, 1) if one.figure is not None}
    gains = {f"-gains{_suffix(n)}": row_gains(outcome) for n, outcome in enumerate(rows, 1)}
    gains |= {f"-curves{_suffix(n)}": row_curves(outcome) for n, outcome in enumerate(rows, 1)}
    figures |= {suffix: figure for suffix, figure in gains.items() if figure is not None}
    over = overview(experiment, rows)
    for suffix, figure in (figures if over is None else figures | {"-all": over}).items():
        png = files[f"png{suffix}"] = stem.with_name(f"{stem.name}{suffix}.png")
        atomic_write_bytes(png, png_bytes(figure, dpi=160))
        atomic_write_text(png.with_suffix(".svg"), svg_text(figure))
    return files


def record(
    experiment: Experiment, scale: str, rows: Sequence[RowOutcome], drawings: Sequence[Drawing] = ()
) -> dict[str, Any]:
    """The whole table as JSON values."""
    drawn = [{"title": one.title, "gaps": list(one.gaps), **one.record} for one in drawings]
    return {
        **({"drawn": drawn} if drawn else {}),
        "kind": "reproduction",
        "schema_version": 1,
        "experiment": experiment.name,
        "title": experiment.title,
        "source": experiment.source,
        "scale": scale,
        "image2video": __version__,
        "rows": [
            {
                "name": outcome.row.name,
                "metric": outcome.row.metric,
                "data": outcome.row.settings[scale].data,
                "model": outcome.row.settings[scale].network,
                "arms": [line.record() for line in outcome.lines],
                "verdicts": sentences(outcome),
                **({"gaps": gaps_record(outcome)} if measured(outcome) else {}),
                "environments": list(outcome.environments),
            }
            for outcome in rows
        ],
    }


def overview(experiment: Experiment, rows: Sequence[RowOutcome]) -> Any:
    """The (matplotlib) figure over all rows that the experiment asks for; None where none, or too few rows yet."""
    results = [outcome.result for outcome in rows if outcome.started]
    if experiment.figure != "depth" or len(results) < 2:
        return None
    shared = [arm.name for arm in results[0].arms if all(result.arm(arm.name) for result in results)]
    return depth_figure(results, shared) if shared else None


def _suffix(number: int) -> str:
    return "" if number == 1 else f"-{number}"


def _arms(outcome: RowOutcome) -> Any:
    return arms_figure(outcome.result, outcome.row.paper)


def _count(value: float | None) -> str:
    return "" if value is None else count_text(value)
