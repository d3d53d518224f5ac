"""The records of finished runs: one JSON file per arm and seed, kept apart by what made them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from image2video.errors import InputError
from image2video.experiments.book import RunFiles
from image2video.reproduce.keys import run_key
from image2video.reproduce.spec import Cell, Experiment, Setting

SCHEMA = 1
T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """One arm of a row with one seed.

    Attributes:
        row: the row's name.
        arm: the arm.
        setting: of the row, at the scale that runs.
        seed: of the run.
        key: of `run_key`.
        drawn: whether a figure is drawn with its weights, which are kept then.
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


class Book(RunFiles[Run]):
    """The folder of all runs; tables share it, since a run belongs to its settings and not to a table.

    Args:
        folder: takes records, searches, weights and trainings.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        super().__init__(folder)
        self.folder = Path(folder)
        self.runs = self.folder / "runs"
        self.searches = self.folder / "searches"

    def read(self, run: Run) -> dict[str, Any] | None:
        """The record of a run.

        Args:
            run: the run.

        Returns:
            The record, with the key `error` where the run failed; None where there is no record.

        Raises:
            InputError: the file is no record of this run.
        """
        record: Any = super().read(run)
        if record is None:
            return None
        known = isinstance(record, dict) and (record.get("schema"), record.get("key")) == (SCHEMA, run.key)
        if not known or not ({"error", "score"} & set(record)):
            raise InputError(f"{self.record_path(run)} is no record of this run; move it away, and run again")
        return dict(record)

    def others(self, run: Run) -> int:
        """Count the records of the same arm, network, data and seed that are of other settings or versions.

        Args:
            run: the run.

        Returns:
            How many there are.
        """
        own = self.record_path(run)
        return sum(path != own for path in self.runs.glob(f"{run.prefix}-????????????-seed{run.seed}.json"))

    def write(self, run: Run, record: dict[str, Any]) -> None:
        """Write a record, whole or not at all.

        Args:
            run: the run.
            record: its figures, or its error.
        """
        head = {"schema": SCHEMA, "key": run.key, "row": run.row, "arm": run.arm.name, "seed": run.seed}
        super().write(run, head | record)


def agreed(accelerator: Accelerator, value: T) -> T:
    """The main process's value: others may have read the folder, the clock or a last digit otherwise."""
    if accelerator.num_processes > 1:
        (value,) = broadcast_object_list([value])
    return value


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
            needed = arm.needed
            if needed is not None and needed not in keys:
                raise InputError(
                    f"arm {arm.name!r} starts from {needed!r}, which must be an arm before it at this scale"
                )
            if needed is not None and not set(setting.seeds_of(arm.name)) <= set(setting.seeds_of(needed)):
                raise InputError(f"arm {arm.name!r} needs as many seeds of {needed!r}, from which it starts")
            keys[arm.name] = run_key(setting, arm, None if needed is None else keys[needed])
        for seed in range(setting.seed, setting.seed + max([setting.seeds, *setting.more_seeds.values()])):
            for arm in arms:
                if seed not in setting.seeds_of(arm.name):
                    continue
                drawn = experiment.draws_networks and seed == setting.seed
                found.append(Run(row.name, arm, setting, seed, keys[arm.name], drawn))
    return found
