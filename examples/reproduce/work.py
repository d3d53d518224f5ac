"""Doing what is missing of a table: every run for itself, a failed one recorded, the rest going on."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from image2video.data import DataSource
from image2video.demo.output import environment
from image2video.errors import InputError, MissingError
from image2video.files import atomic_torch_save
from image2video.protocols import Progress
from image2video.reproduce.book import Book, Run, planned_runs
from image2video.reproduce.classify import run_classification
from image2video.reproduce.data import load
from image2video.reproduce.segment import run_segmentation
from image2video.reproduce.spec import SCALES, Experiment
from image2video.training import make_accelerator


class Worker:
    """Runs what is missing in a folder; one process, or several under accelerate (the main one writes)."""

    def __init__(
        self,
        out: str | Path,
        *,
        specs: Mapping[str, str] | None = None,
        device: str = "auto",
        max_minutes: float | None = None,
        retry: bool = False,
        progress: Progress | None = None,
        accelerator: Accelerator | None = None,
    ) -> None:
        self.book = Book(out)
        self.specs = dict(specs or {})
        self.retry, self._progress = retry, progress
        self._end = None if max_minutes is None else time.monotonic() + 60 * max_minutes
        self.accelerator = accelerator or make_accelerator(device)
        self._data: tuple[tuple[Any, ...], DataSource] | None = None

    def run(self, experiment: Experiment, scale: str) -> list[Run]:
        """Do all runs of a table that have no record yet; gives those that are still missing.

        A run that fails leaves a record with its error and is not tried again unless `retry`; those that start from it
        fail in turn. After `max_minutes` no further run begins. Raises `InputError` for an unknown scale, or one at
        which the table has no row.
        """
        runs = self.planned(experiment, scale)
        starts = {run.arm.start for run in runs}
        todo = [run for run in runs if self._is_missing(run, is_start=run.arm.name in starts)]
        for number, run in enumerate(todo):
            if self._end is not None and time.monotonic() >= self._end:
                return todo[number:]
            if self._progress is not None:
                self._progress(experiment.name, number, len(todo))
            self._one(run, runs)
        if self._progress is not None and todo:
            self._progress(experiment.name, len(todo), len(todo))
        return []

    @staticmethod
    def planned(experiment: Experiment, scale: str) -> list[Run]:
        """All runs of a table at a scale."""
        if scale not in SCALES:
            raise InputError(f"unknown scale {scale!r}; the scales are {', '.join(SCALES)}")
        runs = planned_runs(experiment.rows, experiment.arms_at(scale), scale)
        if not runs:
            known = [name for name in SCALES if any(name in row.settings for row in experiment.rows)]
            raise InputError(f"{experiment.name} has no row at scale {scale!r}; it has rows at {', '.join(known)}")
        return runs

    def _is_missing(self, run: Run, *, is_start: bool) -> bool:
        record = self.book.read(run)
        if record is None or "error" in record:
            return record is None or self.retry
        # Another table may have done the run without keeping its weights.
        return is_start and not self.book.weights_path(run).is_file()

    def _one(self, run: Run, runs: list[Run]) -> None:
        began = time.monotonic()
        try:
            record = self._record(run, runs)
        except MissingError:
            raise  # nothing of this row can run
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            record = {"error": f"{type(error).__name__}: {error} ({where})", "seconds": time.monotonic() - began}
        if self.accelerator.is_main_process:
            self.book.write(run, record | {"environment": environment(self.accelerator.device)})
        self.accelerator.wait_for_everyone()

    def _record(self, run: Run, runs: list[Run]) -> dict[str, Any]:
        if run.setting.config is not None:
            return run_segmentation(run, self.book, self.accelerator, specs=self.specs, progress=self._named(run))
        start = None
        if run.arm.start is not None:
            source = next(r for r in runs if (r.row, r.arm.name, r.seed) == (run.row, run.arm.start, run.seed))
            start = self.book.weights_path(source)
            if not start.is_file():
                raise InputError(f"the arm {run.arm.start!r}, which this one starts from, has no weights: it failed")
        record, weights = run_classification(
            run.arm,
            replace(run.setting, device=self.accelerator.device.type),
            run.seed,
            self._loaded(run),
            searches=self.book.searches,
            training=self.book.training_path(run),
            accelerator=self.accelerator,
            specs=self.specs,
            start=start,
            progress=self._named(run),
        )
        starts = {r.arm.start for r in runs}
        if run.arm.name in starts and self.accelerator.is_main_process:
            atomic_torch_save(self.book.weights_path(run), weights)
        return record

    def _loaded(self, run: Run) -> DataSource:
        setting = run.setting
        key = (setting.data, setting.image_size, setting.train_images, setting.holdout, setting.seed)
        if self._data is None or self._data[0] != key:
            self._data = (key, load(setting, self.specs))
        return self._data[1]

    def _named(self, run: Run) -> Progress | None:
        progress = self._progress
        if progress is None:
            return None

        def report(stage: str, done: int, total: int, **figures: float) -> None:
            if stage == "train":
                progress(f"{run.row}: {run.arm.title}, seed {run.seed}", done, total, **figures)

        return report
