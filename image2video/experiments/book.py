"""The files of runs in one folder: records, last weights, and the folders from which killed trainings go on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from image2video.runs.folders import OutputDirectory, atomic_write_json, read_record


class Named(Protocol):
    """A run that knows the name of its files."""

    @property
    def stem(self) -> str:
        """The name of its files, without an ending."""
        ...


R = TypeVar("R", bound=Named)


class RunFiles(Generic[R]):
    """The files of the runs in one folder.

    Args:
        folder: all of them are in it.
    """

    def __init__(self, folder: str | os.PathLike[str] | OutputDirectory) -> None:
        self._folder = folder if isinstance(folder, OutputDirectory) else Path(folder)

    def record_path(self, run: R) -> Path:
        """The file of a finished run's record."""
        return self._folder / "runs" / f"{run.stem}.json"

    def weights_path(self, run: R) -> Path:
        """The file of its last weights."""
        return self._folder / "weights" / f"{run.stem}.pt"

    def training_path(self, run: R) -> Path:
        """The folder from which a killed run goes on."""
        return self._folder / "training" / run.stem

    def read(self, run: R) -> dict[str, Any] | None:
        """The record of a run; None where it has none."""
        path = self.record_path(run)
        return read_record(path) if path.is_file() else None

    def write(self, run: R, record: dict[str, Any]) -> None:
        """Write a record, whole or not at all."""
        atomic_write_json(self.record_path(run), record)
