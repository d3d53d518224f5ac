"""Learning curves in a file that TensorBoard reads."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

from image2video.runs.atomic import writing


class CurveFile:
    """An event file of scalars, whose name says when it was begun and nothing of the machine.

    The `SummaryWriter` of torch puts the host's name and the process into it.

    Args:
        folder: made where it does not exist; TensorBoard reads all files in it, in the order of their times.
        purge_step: hides what earlier files of the folder hold from this step on.

    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        # Late, so that a search without a folder does not load TensorBoard.
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter
        from torch.utils.tensorboard.summary import scalar

        self._event, self._scalar = Event, scalar
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._path = _new_name(folder)
            self._records = RecordWriter(open(self._path, "xb"))  # noqa: SIM115 (`close` closes it)
        self._write(file_version="brain.Event:2")
        if purge_step is not None:
            self._write(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Add a point to the curve `tag`."""
        self._write(step=step, summary=self._scalar(tag, value))

    def flush(self) -> None:
        """Hand what was added to the system."""
        with writing(self._path):
            self._records.flush()

    def close(self) -> None:
        """Flush, and close the file."""
        with writing(self._path):
            self._records.close()

    def _write(self, **content: Any) -> None:
        with writing(self._path):
            self._records.write(self._event(wall_time=time.time(), **content).SerializeToString())


def _new_name(folder: Path) -> Path:
    """A name by the time; a number tells apart files that are begun in one second."""
    begun = int(time.time())
    names = (folder / f"events.out.tfevents.{begun:010d}.{number:04d}" for number in itertools.count())
    return next(path for path in names if not path.exists())
