"""What the records of a table say so far: per row its arms with their runs, failures and what is missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from image2video.report import ComparisonResult
from image2video.report.result import KIND, SCHEMA_VERSION
from image2video.report.stats import Interval, mean_interval
from image2video.reproduce.book import Book, Run
from image2video.reproduce.spec import Cell, Experiment, Row


@dataclass(frozen=True)
class Line:
    """One arm of a row: what the paper reports, what came out, and at what cost (means over seeds, per image)."""

    arm: Cell
    paper: float | None
    score: Interval | None
    by_seed: dict[int, float]
    genotypes: tuple[str, ...]
    policies: tuple[str, ...]
    epochs: int | None
    images_seen: float | None
    frames: float | None
    parameters: int | None
    macs: float | None
    ms: float | None
    peak_mib: float | None
    search_minutes: float | None
    errors: tuple[str, ...]
    missing: int

    def record(self) -> dict[str, Any]:
        """The line as JSON values."""
        told = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("arm", "score")}
        half = None if self.score is None or self.score.n == 1 else self.score.half_width
        score = None if self.score is None else {"mean": self.score.mean, "half_width_95": half, "n": self.score.n}
        told["by_seed"] = {str(seed): value for seed, value in self.by_seed.items()}
        return {"arm": self.arm.name, "title": self.arm.title, "score": score, **told}


@dataclass(frozen=True)
class RowOutcome:
    """One row of a table at one scale, and the same as a `ComparisonResult`, which reports and verdicts read."""

    row: Row
    scale: str
    lines: tuple[Line, ...]
    result: ComparisonResult
    environment: dict[str, Any]


def outcomes(experiment: Experiment, scale: str, runs: Sequence[Run], book: Book) -> list[RowOutcome]:
    """What there is of every row of a table at a scale, from the records of `runs`."""
    found = []
    for row in experiment.rows:
        own = [run for run in runs if run.row == row.name]
        if own:
            found.append(_outcome(experiment, row, scale, own, book))
    return found


def _outcome(experiment: Experiment, row: Row, scale: str, runs: list[Run], book: Book) -> RowOutcome:
    setting = row.settings[scale]
    lines, arms = [], []
    environment: dict[str, Any] = {}
    for arm in experiment.arms_at(scale):
        of_arm = [run for run in runs if run.arm.name == arm.name]
        records = {run.seed: book.read(run) for run in of_arm}
        done = {seed: r for seed, r in records.items() if r is not None and "error" not in r}
        lines.append(_line(row, arm, records, done))
        arms.append(_arm_record(arm, done))
        environment = next((r["environment"] for r in done.values()), environment)
    record = {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "title": f"{row.name} ({scale})",
        "data": {"name": setting.data, "metric": row.metric},
        "model": setting.model,
        "settings": {"frames": setting.T},
        "arms": arms,
        "contrasts": [dataclasses.asdict(contrast) for contrast in experiment.contrasts],
        "environment": environment,
    }
    return RowOutcome(row, scale, tuple(lines), ComparisonResult.from_dict(record), environment)


def _line(row: Row, arm: Cell, records: dict[int, Any], done: dict[int, dict[str, Any]]) -> Line:
    by_seed = {seed: record["score"] for seed, record in done.items()}
    return Line(
        arm=arm,
        paper=row.paper.get(arm.name),
        score=mean_interval(list(by_seed.values())) if by_seed else None,
        by_seed=by_seed,
        genotypes=tuple(dict.fromkeys(r["genotype"] for r in done.values() if r["genotype"])),
        policies=tuple(dict.fromkeys(r["policy"] for r in done.values() if r["policy"])),
        epochs=next((r["epochs"] for r in done.values()), None),
        images_seen=_mean(done, "images_seen"),
        frames=_mean(done, "frames"),
        parameters=next((r["parameters"] for r in done.values()), None),
        macs=_mean(done, "macs"),
        ms=_mean(done, "ms"),
        peak_mib=_mean(done, "peak_mib"),
        search_minutes=_mean(done, "search_minutes"),
        errors=tuple(f"seed {seed}: {r['error']}" for seed, r in records.items() if r is not None and "error" in r),
        missing=sum(record is None for record in records.values()),
    )


def _mean(done: dict[int, dict[str, Any]], key: str) -> float | None:
    known = [record[key] for record in done.values() if record[key] is not None]
    return sum(known) / len(known) if known else None


def _arm_record(arm: Cell, done: dict[int, dict[str, Any]]) -> dict[str, Any]:
    runs = [
        {
            "seed": seed,
            "genotype": record["genotype"] or "none",
            "accuracy": record["score"],
            "loss": record["loss"],
            "frames": record["frames"],
            "start_frames": 0,
            **{key: record[key] for key in ("epochs", "parameters", "macs", "ms", "seconds")},
        }
        for seed, record in done.items()
    ]
    shown = ("name", "title", "group", "genotype", "fusion", "start", "pool")
    return {key: getattr(arm, key) for key in shown} | {"runs": runs}
