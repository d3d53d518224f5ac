r"""Collects the runs of `image2video reproduce` at one scale into one result file, and their figures.

    python benchmarks/reproduce_summary.py --runs runs/paper --scale cpu --out benchmarks/results/reproduce_cpu.json
    python benchmarks/reproduce_summary.py --runs runs/paper --scale cpu --figures docs/figures

A list of rows per table, and one of its questions (`table5`, `table5_questions`); tables share the runs of arms that
are equal. `front` is what the front page shows of one table. Rows of measured runs also have calibration, stability
under shifts, and the questions over seeds and test images; their figure is that of gains against cost. `gains` sorts
the arms of all tables by what they gain over the bare network at equal compute.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterator
from typing import Any

from harness import write_result
from rich.console import Console

from image2video.errors import MissingError
from image2video.report import save_figure, verdicts
from image2video.report.arms import arms_figure
from image2video.report.verdict import signed
from image2video.reproduce import Worker, experiments, load_experiment
from image2video.reproduce.book import Book
from image2video.reproduce.gains import gains_of, over_of, row_curves, row_gains
from image2video.reproduce.learned import ranges_text
from image2video.reproduce.outcome import Line, RowOutcome, outcomes
from image2video.reproduce.paired import Gap

COLUMNS = ("table", "title", "score", "half_width_95", "n", "epochs", "frames", "ms")
FRONT = {
    "converged": ("deployments", ("tilt_bare", "tilt_default", "tilt_mirror", "tilt_ranked", "tilt_augmented")),
}
"""Scale -> the table and the arms of its first row that the front page shows."""
FRONT_ELSEWHERE = ("table5", ("bare", "bare_long", "none", "replica", "searched"))


def line_row(table: str, outcome: RowOutcome, line: Line) -> dict[str, Any]:
    """One arm of a row: means over its seeds, the half width of a 95 % interval where there are several."""
    score = line.score
    assert score is not None
    found = [*line.genotypes, *line.policies] or ([ranges_text(line.widths)] if line.widths else [])
    return {
        "table": table,
        "row": outcome.row.name,
        "arm": line.arm.name,
        "title": line.arm.title,
        "found": found,
        "paper": line.paper,
        "score": round(score.mean, 2),
        "half_width_95": None if score.n == 1 else round(score.half_width, 2),
        "n": score.n,
        "by_seed": {str(seed): round(value, 2) for seed, value in line.by_seed.items()},
        **{key: getattr(line, key) for key in ("epochs", "images_seen", "frames", "parameters", "macs")},
        "ms": _rounded(line.ms, 3),
        "peak_mib": _rounded(line.peak_mib, 3),
        "search_minutes": _rounded(line.search_minutes or None, 1),
        **measures_row(line),
    }


def measures_row(line: Line) -> dict[str, Any]:
    """What a measured arm has beside its score; shares in percent."""
    found = {"name": line.arm.name} if line.measures else {}
    for key, value in line.measures.items():
        percent = key == "scaled_ece" or key.startswith("stays_")
        found[key] = round(100 * value, 2) if percent else round(value, 4)
    return found


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def question_rows(outcome: RowOutcome) -> Iterator[dict[str, Any]]:
    """The questions of a row: the mean difference on the seeds that both sides have, in points."""
    for verdict in verdicts(outcome.result):
        gap, over_images = verdict.difference, outcome.gap(verdict.contrast.a, verdict.contrast.b)
        reading = "one seed" if gap.n == 1 else verdict.outcome
        if over_images is not None and not over_images.trained:
            reading = over_images.reading
        yield {
            "row": outcome.row.name,
            "question": verdict.contrast.lead,
            "a": verdict.a,
            "b": verdict.b,
            "difference": round(gap.mean, 2),
            "half_width_95": None if gap.n == 1 else round(gap.half_width, 2),
            "n": verdict.n,
            "a_is": reading,
            **both_row(over_images),
        }


def both_row(gap: Gap | None) -> dict[str, Any]:
    """The same difference over seeds and test images, where both sides were measured."""
    if gap is None:
        return {}
    ends = [signed(end, 2) for end in (gap.low, gap.high)]
    half: float | str | None = None if gap.seeds == 1 else round(gap.over_seeds.half_width, 2)
    if not gap.trained:
        half = "nothing trained"
    found = {"over_both": " … ".join(ends), "over_seeds": half, "reading": gap.reading}
    return found | {"seeds": gap.seeds, "images": gap.images}


def gain_rows(name: str, outcome: RowOutcome) -> Iterator[dict[str, Any]]:
    """What the arms of a measured row gain over the bare network at equal compute, at which cost."""
    over = over_of(outcome)
    for line, gap in gains_of(outcome):
        assert over is not None
        times = None if line.macs is None or over.macs is None else round(line.macs / over.macs, 2)
        yield {
            **{"table": name, "row": outcome.row.name, "title": line.arm.title, "points": round(gap.mean, 2)},
            **both_row(gap),
            "times_macs": times,
        }


def finished(options: Namespace) -> dict[str, list[RowOutcome]]:
    """The rows of every table that have a finished run in the folder.

    Raises `MissingError` where there is none.
    """
    book, found = Book(options.runs), {}
    for name in options.tables.split(",") if options.tables else experiments():
        experiment = load_experiment(name)
        if not any(options.scale in row.settings for row in experiment.rows):
            continue
        rows = outcomes(experiment, options.scale, Worker.planned(experiment, options.scale), book)
        if any(row.started for row in rows):
            found[name] = [row for row in rows if row.started]
    if not found:
        raise MissingError(f"no finished run at scale {options.scale!r} in {options.runs}")
    return found


def summary(found: dict[str, list[RowOutcome]], scale: str) -> dict[str, Any]:
    """The payload of the result file; what failed or is missing is said by table."""
    lists: dict[str, list[dict[str, Any]]] = {}
    gaps: dict[str, dict[str, Any]] = {}
    environments: list[dict[str, Any]] = []
    gains: list[dict[str, Any]] = []
    for name, rows in found.items():
        lines, questions, errors, missing = [], [], [], 0
        for row in rows:
            questions += question_rows(row)
            gains += gain_rows(name, row)
            for environment in row.environments:
                if environment not in environments:
                    environments.append(environment)
            for line in row.lines:
                missing += line.missing
                errors += [f"{line.arm.name}, {text}" for text in line.errors]
                if line.score is not None:
                    lines.append(line_row(name, row, line))
        lists |= {name: lines, f"{name}_questions": questions}
        if missing or errors:
            gaps[name] = {"missing": missing, "errors": errors}
    table, arms = FRONT.get(scale, FRONT_ELSEWHERE)
    lines = lists.get(table, [])
    front = [line for line in lines if line["arm"] in arms and line["row"] == lines[0]["row"]]
    results = [line for name in found for line in lists[name]]
    is_measured = any(line.measures for rows in found.values() for row in rows for line in row.lines)
    return {
        "settings": {"scale": scale, "tables": list(found)},
        "made_with": environments,
        "gaps": gaps,
        "results": results,
        **({"gains": sorted(gains, key=lambda gain: -gain["points"])} if is_measured else {}),
        "front": sorted(front, key=lambda line: arms.index(line["arm"])),
        **lists,
    }


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--runs", required=True, help="the folder of `image2video reproduce --out`")
    parser.add_argument("--scale", default="cpu")
    parser.add_argument("--tables", default="", help="some tables, with commas; all that have runs by default")
    parser.add_argument("--out", default=None, help="write the results to this JSON file")
    parser.add_argument("--commit", default=None, help="the commit whose code ran, if not this one")
    parser.add_argument("--figures", default=None, help="write TABLE_SCALE.png and .svg of every row into this folder")
    options = parser.parse_args()
    found = finished(options)
    if options.figures is None:
        payload = summary(found, options.scale)
        if options.commit is not None:
            payload["commit"] = options.commit
        write_result(options.out, "reproduce", payload, columns=COLUMNS)
        return
    for name, rows in found.items():
        for number, row in enumerate(rows, 1):
            stem = f"{options.figures}/{name}_{options.scale}" + ("" if number == 1 else f"_{number}")
            gains = row_gains(row)
            figure = arms_figure(row.result, row.row.paper) if gains is None else gains
            paths = save_figure(figure, stem, dpi=144)
            curves = row_curves(row)
            if curves is not None:
                paths += save_figure(curves, f"{stem}_curves", dpi=144)
            Console().print(f"{name}, {row.row.name}:", *paths, highlight=False)


if __name__ == "__main__":
    main()
