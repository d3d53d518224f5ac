"""What the records of a table say so far: per row its arms with their runs, failures and what is missing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from image2video.report import ComparisonResult
from image2video.report.result import KIND, SCHEMA_VERSION
from image2video.report.stats import Interval, mean_interval
from image2video.reproduce.book import Book, Run
from image2video.reproduce.spec import Cell, Experiment, Row

Records = Mapping[int, dict[str, Any]]
_SPENT = ("epochs", "images_seen", "frames")


@dataclass(frozen=True)
class Line:
    """One arm of a row: what the paper reports, what came out, and at what cost (means over seeds, per image).

    `epochs`, `images_seen` and `frames` are what its weights have seen in training, that of the arm which it starts
    from included; `widths` are those of learned averaging; `missing` counts seeds without a record.
    """

    arm: Cell
    paper: float | None
    score: Interval | None
    by_seed: dict[int, float]
    genotypes: tuple[str, ...]
    policies: tuple[str, ...]
    widths: tuple[float, ...]
    classes: dict[str, float | None]
    epochs: float | None
    images_seen: float | None
    frames: float | None
    parameters: float | None
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
    """One row of a table at one scale, and the same as a `ComparisonResult`, which figures and verdicts read.

    `environments` are the different versions and machines that its runs were made with.
    """

    row: Row
    scale: str
    lines: tuple[Line, ...]
    result: ComparisonResult
    environments: tuple[dict[str, Any], ...]

    @property
    def started(self) -> bool:
        """Whether any run is finished."""
        return any(line.score is not None for line in self.lines)


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
    records = {(run.arm.name, run.seed): book.read(run) for run in runs}
    spent = _spent(runs, records)
    lines, arms, environments = [], [], []
    for arm in experiment.arms_at(scale, row):
        of_arm = {seed: record for (name, seed), record in records.items() if name == arm.name}
        done = {seed: record | spent[arm.name, seed] for seed, record in of_arm.items() if record and _finished(record)}
        lines.append(_line(row, arm, of_arm, done))
        arms.append(_arm_record(arm, done))
        for found in done.values():
            environments += [found["environment"]] if found["environment"] not in environments else []
    record = {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "title": f"{row.name} ({scale})",
        "data": {"name": setting.data, "metric": row.metric},
        "model": setting.network,
        "settings": {"frames": setting.T},
        "arms": arms,
        "contrasts": [dataclasses.asdict(contrast) for contrast in experiment.contrasts],
        "environment": environments[0] if environments else {},
    }
    return RowOutcome(row, scale, tuple(lines), ComparisonResult.from_dict(record), tuple(environments))


def _finished(record: dict[str, Any] | None) -> bool:
    return record is not None and "error" not in record


def _spent(
    runs: list[Run], records: Mapping[tuple[str, int], dict[str, Any] | None]
) -> dict[tuple[str, int], dict[str, Any]]:
    """What the weights of each finished run have seen in all, and what of it they had seen before the run."""
    spent: dict[tuple[str, int], dict[str, Any]] = {}
    for run in runs:  # an arm that starts from another comes after it
        record = records[run.arm.name, run.seed]
        if record is None or not _finished(record):
            continue
        before = spent.get((run.arm.start or "", run.seed), dict.fromkeys(_SPENT, 0))
        total = {key: record[key] + before[key] for key in _SPENT}
        spent[run.arm.name, run.seed] = total | {"start_frames": before["frames"], "own_frames": record["frames"]}
    return spent


def _line(row: Row, arm: Cell, records: Mapping[int, dict[str, Any] | None], done: Records) -> Line:
    by_seed = {seed: record["score"] for seed, record in done.items()}
    widths = [record["widths"] for record in done.values() if record.get("widths")]
    costs = {key: _mean(done, key) for key in (*_SPENT, "parameters", "macs", "ms", "peak_mib", "search_minutes")}
    return Line(
        arm=arm,
        paper=row.paper.get(arm.name),
        score=mean_interval(list(by_seed.values())) if by_seed else None,
        by_seed=by_seed,
        genotypes=tuple(dict.fromkeys(r["genotype"] for r in done.values() if r["genotype"])),
        policies=tuple(dict.fromkeys(r["policy"] for r in done.values() if r["policy"])),
        classes=_classes(done),
        widths=tuple(sum(column) / len(column) for column in zip(*widths, strict=True)),
        errors=tuple(f"seed {seed}: {r['error']}" for seed, r in records.items() if r is not None and "error" in r),
        missing=sum(record is None for record in records.values()),
        **costs,
    )


def _classes(done: Records) -> dict[str, float | None]:
    """The mean IoU of every class over the seeds that have it."""
    by_seed = [record["classes"] for record in done.values() if record.get("classes")]
    found = {name: [one[name] for one in by_seed if one[name] is not None] for one in by_seed[:1] for name in one}
    return {name: sum(values) / len(values) if values else None for name, values in found.items()}


def _mean(done: Records, key: str) -> float | None:
    known = [record[key] for record in done.values() if record[key] is not None]
    if not known:
        return None
    mean = sum(known) / len(known)
    return int(mean) if mean == int(mean) else mean  # counts stay counts


def _arm_record(arm: Cell, done: Records) -> dict[str, Any]:
    runs = [
        {
            "seed": seed,
            "genotype": record["genotype"] or "none",
            "accuracy": record["score"],
            "loss": math.nan if record["loss"] is None else record["loss"],
            "epochs": round(record["epochs"]),
            "frames": record["own_frames"],
            "start_frames": record["start_frames"],
            **{key: record[key] for key in ("parameters", "macs", "ms", "seconds")},
        }
        for seed, record in done.items()
    ]
    shown = ("name", "title", "group", "genotype", "fusion", "start", "pool")
    return {key: getattr(arm, key) for key in shown} | {"runs": runs}
