"""Doing what is missing of a table: every run for itself, a failed one recorded, the rest going on."""

from __future__ import annotations

import shutil
import time
import traceback
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from image2video.errors import InputError, MissingError
from image2video.experiments.arms import select_arms
from image2video.experiments.output import environment
from image2video.experiments.run import train_steps
from image2video.protocols import Progress
from image2video.reproduce.book import Book, Run, agreed, planned_runs
from image2video.reproduce.catalogue import drawn_runs, starting_arms
from image2video.reproduce.classify import run_classification
from image2video.reproduce.data import Shelf, check_names
from image2video.reproduce.genotypes import data_settings
from image2video.reproduce.pretrained import weights_file
from image2video.reproduce.spec import SCALES, Experiment
from image2video.runs.folders import FolderLock, WriteError, atomic_torch_save
from image2video.training import make_accelerator


def data_names(runs: Iterable[Run]) -> set[str]:
    """The data sets of runs, those included on which their clips are searched for."""
    return {setting.data for run in runs for setting in data_settings(run.arm, run.setting)}


class Worker:
    """Does the runs that are missing in a folder. Of several processes under accelerate, the main one writes.

    Args:
        out: the folder of all results; one worker at a time, another is refused.
        specs: where data sets are, by name (see `parse_data`).
        places: where trained weights are, by name (see `parse_weights`).
        device: auto, cpu, cuda or mps, where no accelerator is given.
        max_minutes: begin no further run after so many minutes.
        retry: try failed runs again.
        arms: do only the runs of these arms and of those whose weights they need; None for all.
        known: names of data sets that `specs` may hold although the rows to run do not need them.
        progress: called with the table's runs, and with the steps of each.
        accelerator: of Hugging Face accelerate.
    """

    def __init__(
        self,
        out: str | Path,
        *,
        specs: Mapping[str, str] | None = None,
        places: Mapping[str, str] | None = None,
        device: str = "auto",
        max_minutes: float | None = None,
        retry: bool = False,
        arms: Sequence[str] | None = None,
        known: Iterable[str] = (),
        progress: Progress | None = None,
        accelerator: Accelerator | None = None,
    ) -> None:
        self.book = Book(out)
        self.retry, self._progress = retry, progress
        self.places, self.arms, self._known = dict(places or {}), arms, frozenset(known)
        self._end = None if max_minutes is None else time.monotonic() + 60 * max_minutes
        self.accelerator = accelerator or make_accelerator(device)
        writes = self.accelerator.is_main_process
        self.shelf = Shelf(specs or {}, self.book.folder / "data", writes=writes, places=self.places)

    @staticmethod
    def planned(experiment: Experiment, scale: str) -> list[Run]:
        """All runs of a table at a scale; a figure without rows has none.

        Args:
            experiment: the table or figure.
            scale: one of `SCALES`.

        Returns:
            The runs, in the order in which they are done.

        Raises:
            InputError: an unknown scale, or one at which the table has no row.
        """
        if scale not in SCALES:
            raise InputError(f"unknown scale {scale!r}; the scales are {', '.join(SCALES)}")
        runs = planned_runs(experiment, scale)
        if not runs and experiment.rows:
            known = [name for name in SCALES if any(name in row.settings for row in experiment.rows)]
            raise InputError(f"{experiment.name} has no row at scale {scale!r}; it has rows at {', '.join(known)}")
        return runs

    def missing_data(self, experiment: Experiment, scale: str) -> dict[str, str]:
        """The data sets and weights that are not there and that missing runs of a table need. Other data are loaded.

        Args:
            experiment: the table.
            scale: one of `SCALES`.

        Returns:
            Name of a data set, or of trained weights -> how to get it.

        Raises:
            InputError: an unknown scale, or a place of a data set that nothing needs.
        """
        planned = self.planned(experiment, scale)
        check_names(self.shelf.specs, self._known | data_names(planned))
        runs = self._todo(planned)
        texts: dict[str, str] = {}
        for run in runs:
            texts |= self._unreadable(run)
        return texts

    def run(self, experiment: Experiment, scale: str) -> list[Run]:
        """Do all runs of a table that have no record yet.

        A run that fails leaves a record with its error and is not tried again unless `retry`; those that start from it
        fail in turn. Runs whose data are not there are left out. After `max_minutes` no further run begins.

        Args:
            experiment: the table.
            scale: one of `SCALES`.

        Returns:
            The runs that are still missing, of the arms that were asked for.

        Raises:
            MissingError: the data of all missing runs are not there.
            InputError: an unknown scale, or a place of a data set that nothing needs.
            StateError: another worker is at work in the folder.
            WriteError: the folder cannot be written.
        """
        with FolderLock(self.book.folder, wanted=self.accelerator.is_main_process):
            return self._run(self.planned(experiment, scale), experiment, scale)

    def _run(self, runs: list[Run], experiment: Experiment, scale: str) -> list[Run]:
        """Do the runs that have no record yet; those that are still missing."""
        todo, lacking = self._todo(runs), self.missing_data(experiment, scale)
        ready = [run for run in todo if not self._unreadable(run)]
        if todo and not ready:
            raise MissingError("; ".join(lacking.values()))
        if self.accelerator.is_main_process:
            self._sweep(runs, todo)
        left = [run for run in todo if run not in ready]
        report: Progress = self._progress or (lambda stage, done, total, **figures: None)
        for number, run in enumerate(ready):
            out_of_time = self._end is not None and time.monotonic() >= self._end
            if agreed(self.accelerator, out_of_time):
                return left + ready[number:]
            report(experiment.name, number, len(ready))
            # Rows with equal settings share their runs.
            if agreed(self.accelerator, self._is_missing(run, self._chosen(runs))):
                self._one(run, runs)
        if ready:
            report(experiment.name, len(ready), len(ready))
        return left

    def _todo(self, runs: list[Run]) -> list[Run]:
        """The runs that are to be done, the same in every process."""
        chosen = self._chosen(runs)
        wanted = agreed(self.accelerator, [self._is_missing(run, chosen) for run in chosen])
        return [run for run, missing in zip(chosen, wanted, strict=True) if missing]

    def _chosen(self, runs: list[Run]) -> list[Run]:
        """The runs of the arms that were asked for, and of those that they start from."""
        names = {arm.name for arm in select_arms([run.arm for run in runs], self.arms)}
        return [run for run in runs if run.arm.name in names]

    def _is_missing(self, run: Run, runs: list[Run]) -> bool:
        """Whether a run is to be done: for its record, or for weights that a figure or another of `runs` needs."""
        record = self.book.read(run)
        if record is None:
            return True
        if "error" in record:
            return self.retry
        # Its weights may be gone, or from a time when no arm started from it and no figure was drawn with it.
        if self.book.weights_path(run).is_file():
            return False
        followers = [one for one in runs if (one.row, one.arm.needed, one.seed) == (run.row, run.arm.name, run.seed)]
        return run.drawn or any(self._is_missing(one, runs) for one in followers)

    @staticmethod
    def _keeps(run: Run, runs: list[Run]) -> bool:
        """Whether the last weights of a run are kept: another arm starts from them, or a figure is drawn with them."""
        starts = starting_arms() | {other.arm.needed for other in runs}
        return run.arm.name in starts or run.drawn or (run.key, run.seed) in drawn_runs()

    def _unreadable(self, run: Run) -> dict[str, str]:
        """The data sets and the trained weights of a run that are not there, with how to get each."""
        found = {}
        if run.setting.weights is not None:
            try:
                weights_file(run.setting.weights, self.places)
            except MissingError as error:
                found[run.setting.weights] = str(error)
        for setting in data_settings(run.arm, run.setting):
            try:
                self.shelf(setting)
            except MissingError as error:
                found[setting.data] = str(error)
        return found

    def _sweep(self, runs: list[Run], todo: list[Run]) -> None:
        """Remove the training folders of finished runs, which a kill may have left."""
        for run in runs:
            if run not in todo and self._is_done(run):
                shutil.rmtree(self.book.training_path(run), ignore_errors=True)

    def _one(self, run: Run, runs: list[Run]) -> None:
        """Do a run and keep its record, or the record of its failure."""
        began = time.monotonic()
        try:
            record = self._record(run, runs)
        except WriteError:
            raise  # no later run could write either
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            record = {"error": f"{type(error).__name__}: {error} ({where})", "seconds": time.monotonic() - began}
        if self.accelerator.is_main_process:
            self._keep(run, record)
        self.accelerator.wait_for_everyone()
        # Graphs and memory of this network are of no use to the next.
        if run.setting.recipe.get("compile"):
            torch.compiler.reset()
        if self.accelerator.device.type == "cuda":
            torch.cuda.empty_cache()

    def _keep(self, run: Run, record: dict[str, Any]) -> None:
        """Write a record, unless a failure would take the place of a result."""
        if "error" in record and self._is_done(run):
            warnings.warn(f"{run.stem} was done again for its weights, and failed: {record['error']}", stacklevel=3)
            return
        self.book.write(run, record | {"environment": self._environment()})
        if "error" not in record:  # a failed one goes on from there when it is tried again
            shutil.rmtree(self.book.training_path(run), ignore_errors=True)

    def _is_done(self, run: Run) -> bool:
        return "error" not in (self.book.read(run) or {"error": ""})

    def _environment(self) -> dict[str, Any]:
        """Versions and hardware; several processes count, since each may normalise its own batches."""
        found, processes = environment(self.accelerator.device), self.accelerator.num_processes
        return found | {"processes": processes} if processes > 1 else found

    def _record(self, run: Run, runs: list[Run]) -> dict[str, Any]:
        """Do a run, and keep its weights where they are needed."""
        needed = None if run.arm.needed is None else self._needed(run, runs)
        options: dict[str, Any] = {
            "load": self.shelf,
            "start": needed if run.arm.start is not None else None,
            "progress": lambda stage: self._named(run, stage),
        }
        if run.setting.config is None:
            record, weights = run_classification(
                run.arm,
                replace(run.setting, device=self.accelerator.device.type),
                run.seed,
                searches=self.book.searches,
                training=self.book.training_path(run),
                accelerator=self.accelerator,
                ranked_for=needed if run.arm.start is None else None,
                places=self.places,
                **options,
            )
        else:
            from image2video.reproduce.segment import run_segmentation  # mmsegmentation is optional

            record, weights = run_segmentation(run, self.book, self.accelerator, **options)
        if self._keeps(run, runs) and self.accelerator.is_main_process:
            atomic_torch_save(self.book.weights_path(run), weights)
        return record

    def _needed(self, run: Run, runs: list[Run]) -> Path:
        """The weights that a run needs; raises `InputError` where there are none, with the reason."""
        source = next(r for r in runs if (r.row, r.arm.name, r.seed) == (run.row, run.arm.needed, run.seed))
        path = self.book.weights_path(source)
        if not path.is_file():
            error = (self.book.read(source) or {}).get("error", "it has not run")
            how = "it starts from" if run.arm.start is not None else "its clip is ranked for"
            raise InputError(f"{how} {source.arm.name!r}, seed {run.seed}, which has no weights: {error}")
        return path

    def _named(self, run: Run, search: str) -> Progress | None:
        """The steps of a training under the name of the run; those of a search under its own name."""
        progress = self._progress
        if progress is None or not search:
            return train_steps(progress, f"{run.arm.name}, seed {run.seed}")
        return lambda stage, done, total, **figures: progress(f"{search} ({stage})", done, total, **figures)
