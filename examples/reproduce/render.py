"""A table as Markdown, HTML, JSON and a figure: the paper's number, ours with its interval, and the cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from image2video.files import atomic_write_bytes, atomic_write_json, atomic_write_text
from image2video.report import verdicts
from image2video.report.page import Section, document, figure_html, table_html
from image2video.report.style import png_bytes, svg_text
from image2video.report.table import accuracy_text, count_text, genotype_text
from image2video.reproduce.figure import table_figure
from image2video.reproduce.outcome import Line, RowOutcome
from image2video.reproduce.spec import Experiment
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
_SHORT = {
    "smoke": "Smoke scale: whether everything runs. The figures mean nothing.",
    "cpu": (
        "CPU scale: a small network, few images, short runs. Short runs cannot settle equal compute: they say that "
        "longer training helps, which is known."
    ),
}


def cells(line: Line) -> tuple[str, ...]:
    """One arm as text, in the order of `COLUMNS`."""
    if line.score is None:
        ours, n = ("failed", "0") if line.errors else ("not run", "0")
    else:
        ours, n = accuracy_text(line.score), str(line.score.n)
    what = [genotype_text(text) for text in line.genotypes] + list(line.policies)
    return (
        line.arm.title,
        what[0] if len(what) == 1 else f"{len(what)} different" if what else "",
        "" if line.paper is None else f"{line.paper:.2f}",
        ours,
        n,
        "" if line.epochs is None else str(line.epochs),
        _count(line.images_seen),
        _count(line.frames),
        _count(line.macs),
        "" if line.ms is None else f"{line.ms:.2g}",
        "" if line.peak_mib is None else f"{line.peak_mib:.1f}",
        "" if not line.search_minutes else f"{line.search_minutes:.1f}",
    )


def markdown(experiment: Experiment, scale: str, rows: Sequence[RowOutcome]) -> str:
    """The whole table as Markdown."""
    parts = [f"# {experiment.title}", f"{experiment.source}. {_SHORT.get(scale, '')}".strip(), experiment.notes.strip()]
    for outcome in rows:
        parts.append(f"## {outcome.row.name}")
        parts.append(_caption(outcome))
        lines = [COLUMNS, tuple("---" if i < 2 else "---:" for i in range(len(COLUMNS)))]
        lines += [cells(line) for line in outcome.lines]
        parts.append("\n".join("| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in lines))
        found = [f"- {verdict.phrase()}." for verdict in verdicts(outcome.result)]
        parts += ["\n".join(found)] if found else []
        parts += _failures(outcome)
    return "\n\n".join(part for part in parts if part) + "\n"


def html(experiment: Experiment, scale: str, rows: Sequence[RowOutcome]) -> str:
    """The whole table as one HTML page, the figure inside."""
    sections, sentences = [], []
    for outcome in rows:
        found = verdicts(outcome.result)
        sentences += [f"{outcome.row.name}: {one.phrase()}." for one in found if one.contrast.headline]
        table = table_html(COLUMNS, [cells(line) for line in outcome.lines], numbers=range(2, len(COLUMNS)))
        body = table + "".join(f"<p>{text}</p>" for text in _failures(outcome))
        if any(line.score is not None for line in outcome.lines):
            body += figure_html(table_figure(outcome), f"{outcome.row.metric} on the test set, 95 % intervals")
        sections.append(Section(outcome.row.name, body + f"<p>{_caption(outcome)}</p>"))
    notes = f"{experiment.source}. {_SHORT.get(scale, '')} {experiment.notes}"
    return document(experiment.title, sentences or ["nothing is finished yet"], [Section("about", notes), *sections])


def write(experiment: Experiment, scale: str, rows: Sequence[RowOutcome], out: str | Path) -> dict[str, Path]:
    """Write NAME-SCALE.md, .html, .json, and a .png and .svg per row into a folder; gives the files by kind."""
    stem = Path(out) / f"{experiment.name}-{scale}"
    stem.parent.mkdir(parents=True, exist_ok=True)
    files = {kind: stem.with_name(f"{stem.name}.{kind}") for kind in ("md", "html", "json")}
    atomic_write_text(files["md"], markdown(experiment, scale, rows))
    atomic_write_text(files["html"], html(experiment, scale, rows))
    atomic_write_json(files["json"], record(experiment, scale, rows))
    for number, outcome in enumerate(rows):
        if any(line.score is not None for line in outcome.lines):
            figure = table_figure(outcome)
            suffix = "" if number == 0 else f"-{number + 1}"
            atomic_write_bytes(stem.with_name(f"{stem.name}{suffix}.png"), png_bytes(figure))
            atomic_write_text(stem.with_name(f"{stem.name}{suffix}.svg"), svg_text(figure))
            files[f"png{suffix}"] = stem.with_name(f"{stem.name}{suffix}.png")
    return files


def record(experiment: Experiment, scale: str, rows: Sequence[RowOutcome]) -> dict[str, Any]:
    """The whole table as JSON values."""
    return {
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
                "model": outcome.row.settings[scale].model,
                "arms": [line.record() for line in outcome.lines],
                "verdicts": [verdict.phrase() for verdict in verdicts(outcome.result)],
                "environment": outcome.environment,
            }
            for outcome in rows
        ],
    }


def _caption(outcome: RowOutcome) -> str:
    setting = outcome.row.settings[outcome.scale]
    images = "all" if setting.train_images is None else str(setting.train_images)
    return (
        f"{outcome.row.metric} in percent on the test set of {setting.data}, {setting.model}, {images} labelled images "
        f"({setting.holdout:.0%} held out for choices), T = {setting.T}, {setting.epochs} epochs, mean ± 95 % interval "
        "over n seeds."
    )


def _failures(outcome: RowOutcome) -> list[str]:
    failed = [f"{line.arm.title}, {error}" for line in outcome.lines for error in line.errors]
    missing = sum(line.missing for line in outcome.lines)
    return [f"Failed: {text}" for text in failed] + ([f"{missing} runs are missing."] if missing else [])


def _count(value: float | None) -> str:
    return "" if value is None else count_text(value)
