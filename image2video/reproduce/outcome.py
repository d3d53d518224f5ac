"""What the records of a table say so far: per row its arms with their runs, failures and what is missing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from image2video.experiments.outcome import arm_record, result_record
from image2video.report import ComparisonResult
from image2video.report.stats import Interval, mean_interval
from image2video.reproduce.book import Book, Run
from image2video.reproduce.measures import unpacked
from image2video.reproduce.paired import Gap, paired_gap
from image2video.reproduce.spec import Cell, Experiment, Row, Setting

Records = Mapping[int, dict[str, Any]]
_SEEN = ("epochs", "images_seen", "frames")
MEASURES = ("loss", "scaled_loss", "scaled_ece", "temperature", "training_seconds")
"""What a measured run records beside its score, a number each; `consistency` holds one per shift."""
_COSTS = (*_SEEN, "parameters", "macs", "ms", "peak_mib", "search_minutes")


@dataclass(frozen=True)
class Line:
    """One arm of a row: what the paper reports, what came out, and at what cost (means over seeds, per image).

    `epochs`, `images_seen` and `frames` are what its weights have seen in training, that of the arm which it starts
    from included; `widths` are those of learned averaging; `measures` are means over seeds and `right` the answers by
    seed, where runs were measured; `missing` counts seeds without a record.
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
    measures: dict[str, float]
    right: dict[int, np.ndarray]
    errors: tuple[str, ...]
    missing: int

    def record(self) -> dict[str, Any]:
        """The line as JSON values."""
        left_out = ("arm", "score", "right") if self.measures else ("arm", "score", "right", "measures")
        told = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in left_out}
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
    def setting(self) -> Setting:
        """Of the row, at its scale."""
        return self.row.settings[self.scale]

    def side(self, name: str) -> list[Line]:
        """The measured lines of an arm or of a pool."""
        lines = [line for line in self.lines if name in (line.arm.name, line.arm.pool)]
        return [line for line in lines if line.right]

    def gap(self, a: str, b: str) -> Gap | None:
        """The difference of two arms or pools, paired by seed and image; None where they share no measured seed."""
        first, second = ([line.right for line in self.side(name)] for name in (a, b))
        return paired_gap(first, second, trained=self.setting.trains)

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
    finished = _finished(runs, records)
    lines, arms = [], []
    for arm in experiment.arms_at(scale, row):
        of_arm = {seed: record for (name, seed), record in records.items() if name == arm.name}
        done = {seed: record for (name, seed), record in finished.items() if name == arm.name}
        lines.append(_line(row, arm, of_arm, done))
        arms.append(_arm_record(arm, done))
    environments: list[dict[str, Any]] = []
    for record in finished.values():
        if record["environment"] not in environments:
            environments.append(record["environment"])
    comparison = result_record(
        title=f"{row.name} ({scale})",
        data={"name": setting.data, "metric": row.metric},
        model=setting.network,
        settings={"frames": setting.T},
        arms=arms,
        contrasts=experiment.contrasts,
        environment=environments[0] if environments else {},
    )
    return RowOutcome(row, scale, tuple(lines), ComparisonResult.from_dict(comparison), tuple(environments))


def _finished(
    runs: list[Run], records: Mapping[tuple[str, int], dict[str, Any] | None]
) -> dict[tuple[str, int], dict[str, Any]]:
    """The records of finished runs; what they have seen includes what the weights had seen that they started from."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for run in runs:  # an arm that starts from another comes after it
        record = records[run.arm.name, run.seed]
        if record is None or "error" in record:
            continue
        before = found.get((run.arm.start or "", run.seed), dict.fromkeys(_SEEN, 0))
        seen = {key: record[key] + before[key] for key in _SEEN}
        own = {"start_frames": before["frames"], "own_frames": record["frames"]}
        found[run.arm.name, run.seed] = record | seen | own
    return found


def _line(row: Row, arm: Cell, records: Mapping[int, dict[str, Any] | None], done: Records) -> Line:
    by_seed = {seed: record["score"] for seed, record in done.items()}
    widths = [record["widths"] for record in done.values() if record.get("widths")]
    return Line(
        arm=arm,
        paper=row.paper.get(arm.name),
        score=mean_interval(list(by_seed.values())) if by_seed else None,
        by_seed=by_seed,
        genotypes=_different(done, "genotype"),
        policies=_different(done, "policy"),
        classes=_classes(done),
        measures=_measures(done),
        right={seed: unpacked(record) for seed, record in done.items() if "right" in record},
        widths=tuple(sum(column) / len(column) for column in zip(*widths, strict=True)),
        errors=tuple(f"seed {seed}: {r['error']}" for seed, r in records.items() if r is not None and "error" in r),
        missing=sum(record is None for record in records.values()),
        **{key: _mean(done, key) for key in _COSTS},
    )


def _different(done: Records, key: str) -> tuple[str, ...]:
    """The different values of a key, in their order; none for runs that have none."""
    return tuple(dict.fromkeys(record[key] for record in done.values() if record[key]))


def _classes(done: Records) -> dict[str, float | None]:
    """The mean IoU of every class over the seeds that have it."""
    by_seed = [record["classes"] for record in done.values() if record.get("classes")]
    found: dict[str, float | None] = {}
    for name in by_seed[0] if by_seed else ():
        values = [classes[name] for classes in by_seed if classes[name] is not None]
        found[name] = sum(values) / len(values) if values else None
    return found


def _measures(done: Records) -> dict[str, float]:
    """The means over seeds of what was measured; nothing where a run was not."""
    if not done or not all("right" in record for record in done.values()):
        return {}
    found = {name: _mean(done, name) for name in MEASURES}
    for pixels in next(iter(done.values()))["consistency"]:
        shares = [record["consistency"][pixels] for record in done.values()]
        found[f"stays_{pixels}"] = sum(shares) / len(shares)
    return {name: value for name, value in found.items() if value is not None}


def _mean(done: Records, key: str) -> float | None:
    known = [record[key] for record in done.values() if record[key] is not None]
    if not known:
        return None
    mean = sum(known) / len(known)
    return int(mean) if mean == int(mean) else mean  # counts stay counts


def _arm_record(arm: Cell, done: Records) -> dict[str, Any]:
    """An arm with its runs as a comparison's `result.json` has them."""
    runs = [
        {
            "seed": seed,
            "genotype": record["genotype"] or "none",
            "accuracy": record["score"],
            "loss": math.nan if record["loss"] is None else record["loss"],
            "epochs": round(record["epochs"]),
            "frames": record["own_frames"],
            **{key: record[key] for key in ("start_frames", "parameters", "macs", "ms", "seconds")},
            **({"curve": record["curve"]} if record.get("curve") else {}),
        }
        for seed, record in done.items()
    ]
    return arm_record(arm, runs)
