"""The records of finished runs: one JSON file per arm and seed, kept apart by what made them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from image2video.errors import InputError
from image2video.reproduce.spec import Cell, Experiment, Setting, run_key
from image2video.runs.folders import atomic_write_json, read_json

SCHEMA = 1


@dataclass(frozen=True)
class Run:
    """One arm of a row with one seed, and the file of its record.

    `drawn`: the figure of its experiment is drawn with its weights, so they are kept.
    """

    row: str
    arm: Cell
    setting: Setting
    seed: int
    key: str
    drawn: bool = False

    @property
    def prefix(self) -> str:
        """What it is, in a file's name."""
        model = "".join(c if c.isalnum() else "-" for c in self.setting.network)
        return f"{self.setting.data}-{model}-{self.arm.name}"

    @property
    def stem(self) -> str:
        """The name of its files."""
        return f"{self.prefix}-{self.key}-seed{self.seed}"


class Book:
    """The folder of all runs; tables share it, since a run belongs to its settings and not to a table."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.runs = self.folder / "runs"
        self.searches = self.folder / "searches"

    def record_path(self, run: Run) -> Path:
        """The file of a finished run's record."""
        return self.runs / f"{run.stem}.json"

    def weights_path(self, run: Run) -> Path:
        """The file of its last weights, kept for arms that others start from, and for figures."""
        return self.folder / "weights" / f"{run.stem}.pt"

    def training_path(self, run: Run) -> Path:
        """The folder from which a killed run goes on."""
        return self.folder / "training" / run.stem

    def read(self, run: Run) -> dict[str, Any] | None:
        """The record of a run; None where it has none. One with the key `error` is that of a failed run.

        Raises `InputError` for a file that is no record of ours.
        """
        path = self.record_path(run)
        if not path.is_file():
            return None
        record = read_json(path)
        whole = isinstance(record, dict) and (record.get("schema"), record.get("key")) == (SCHEMA, run.key)
        if not whole or not ({"error", "score"} & set(record)):
            raise InputError(f"{path} is no record of this run; move it away, and run again")
        return dict(record)

    def others(self, run: Run) -> int:
        """How many records there are of the same arm, network, data and seed, but of other settings or versions."""
        own = self.record_path(run)
        return sum(path != own for path in self.runs.glob(f"{run.prefix}-????????????-seed{run.seed}.json"))

    def write(self, run: Run, record: dict[str, Any]) -> None:
        """Write a record, whole or not at all."""
        told = {"schema": SCHEMA, "key": run.key, "row": run.row, "arm": run.arm.name, "seed": run.seed}
        atomic_write_json(self.record_path(run), told | record)


def planned_runs(experiment: Experiment, scale: str) -> list[Run]:
    """All runs of a table at a scale, seed by seed, so that a part of them is already a comparison.

    An arm that starts from another comes after it. Raises `InputError` for a start that is no arm before it.
    """
    found = []
    for row in experiment.rows:
        setting = row.settings.get(scale)
        if setting is None:
            continue
        arms = experiment.arms_at(scale, row)
        keys: dict[str, str] = {}
        for arm in arms:
            if arm.start is not None and arm.start not in keys:
                raise InputError(f"arm {arm.name!r} starts from {arm.start!r}, which is no arm before it at this scale")
            if arm.start is not None and not set(setting.seeds_of(arm.name)) <= set(setting.seeds_of(arm.start)):
                raise InputError(f"arm {arm.name!r} has more seeds than {arm.start!r}, from which it starts")
            keys[arm.name] = run_key(setting, arm, None if arm.start is None else keys[arm.start])
        for seed in range(setting.seed, setting.seed + max([setting.seeds, *setting.more_seeds.values()])):
            for arm in arms:
                if seed not in setting.seeds_of(arm.name):
                    continue
                drawn = experiment.draws_networks and seed == setting.seed
                found.append(Run(row.name, arm, setting, seed, keys[arm.name], drawn))
    return found
