"""Output folders that never swallow another run; with the atomic writes of `image2video.runs.atomic`."""

from __future__ import annotations

import datetime
import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch

from image2video.errors import ExistsError, InputError
from image2video.runs.atomic import (
    WriteError,
    atomic_torch_save,
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    torch_load,
    torch_load_last,
)
from image2video.runs.lock import LOCK_FILE, FolderLock
from image2video.runs.texts import read_json, read_record, user_path
from image2video.version import __version__

__all__ = [
    "RUN_FILE",
    "FolderLock",
    "OutputDirectory",
    "WriteError",
    "add_to_run",
    "atomic_torch_save",
    "atomic_write_bytes",
    "atomic_write_json",
    "atomic_write_text",
    "read_json",
    "read_record",
    "torch_load",
    "torch_load_last",
    "versions",
]

RUN_FILE = "run.json"


class OutputDirectory:
    """The folder that one run writes into; another run's folder is refused, and one into which another job writes.

    `run.json` marks the folder: the kind of run, its dates, its state, and the names that the run has put there. It is
    written at once, so a killed run is recognised too. The folder is locked (see `FolderLock`) until `finish`, `close`
    or the end of a `with` block.

    Args:
        path: the folder; made if it does not exist.
        kind: what runs here, such as `"search"` or `"train"`.
        overwrite: replace an earlier run. Only what that run put there (as its `run.json` lists it) is deleted.
        resume: go on with an earlier run of the same kind where there is one (`resumed` says so), else begin.

    Raises:
        ExistsError: the folder holds another run or other files, or `path` is a file.
        InputError: both `overwrite` and `resume`.
        StateError: another job is writing into the folder; the message names its process and its machine.

    Example:
        >>> import tempfile
        >>> with OutputDirectory(tempfile.mkdtemp(), "search") as folder:
        ...     atomic_write_json(folder / "scores.json", {"edges": []})
        ...     folder.finish(images=5000)

    """

    def __init__(
        self, path: str | os.PathLike[str], kind: str, *, overwrite: bool = False, resume: bool = False
    ) -> None:
        if overwrite and resume:
            raise InputError("overwrite=True and resume=True contradict each other; choose one")
        self.path = Path(path)
        self.kind = kind
        self.resumed = False
        self._run: dict[str, Any] = {}
        self._lock = FolderLock(self.path)
        try:
            self._claim(overwrite, resume)
        except BaseException:
            self.close()
            raise

    def _claim(self, overwrite: bool, resume: bool) -> None:
        earlier = self._earlier_run()
        # A kill during the very first write leaves nothing but a partial file of ours.
        others = [p.name for p in self.path.iterdir() if p.name != LOCK_FILE and not _is_partial(p)]
        if earlier is not None and resume:
            if earlier.get("kind") != self.kind:
                raise ExistsError(
                    f"{self.path} holds a run of {earlier.get('kind')!r:.80}, which {self.kind!r} cannot resume; "
                    "choose another folder"
                )
            self.resumed = True
            self._sweep()
            resumes = int(earlier.get("resumes", 0)) + 1
            self._run = {"contents": [], **earlier, "state": "running", "resumes": resumes}
            self._write()
            return
        if others and not overwrite:
            if earlier is None:
                raise ExistsError(
                    f"{self.path} holds other files ({sorted(others)[0]}, …); choose another folder, or write beside "
                    "them, and over files of the same name, with overwrite=True (--overwrite)"
                )
            raise ExistsError(
                f"{self.path} holds a run of {earlier.get('kind')!r:.80}; choose another folder, replace it with "
                "overwrite=True (--overwrite), or go on with it with resume=True (--resume)"
            )
        if earlier is not None:
            self._remove(earlier)
            self._sweep()
        self._run = {"kind": self.kind, "state": "running", "started": _now(), "resumes": 0, "contents": []}
        self._write()

    def _earlier_run(self) -> dict[str, Any] | None:
        marker = self.path / RUN_FILE
        if not marker.is_file():
            return None
        run = read_json(marker, "run's record")
        if not isinstance(run, dict) or not isinstance(run.get("kind"), str):
            return None
        _check_run(run, marker)
        return run

    def _remove(self, earlier: Mapping[str, Any]) -> None:
        for name in earlier.get("contents", []):
            target = self.path / name
            if not _is_name(name) or name == "..":
                continue
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
        (self.path / RUN_FILE).unlink(missing_ok=True)

    def _sweep(self) -> None:
        # A list first, since a folder that is deleted may hold others.
        for leftover in list(self.path.rglob(".*.part")):
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover)
            else:
                leftover.unlink(missing_ok=True)

    def __truediv__(self, name: str) -> Path:
        """The path of `name` inside the folder; its first part is listed in `run.json` as this run's own."""
        first = Path(name).parts[0]
        if first not in self._run["contents"]:
            self._run["contents"].append(first)
            self._write()
        return self.path / name

    def note(self, **facts: Any) -> None:
        """Add facts about the run (versions, durations: plain JSON values) to `run.json`."""
        self._run.update(facts)
        self._write()

    def finish(self, **facts: Any) -> None:
        """Mark the run as done, with the date and the given facts, and let the folder go."""
        self.note(**facts, state="done", finished=_now())
        self.close()

    def close(self) -> None:
        """Let the folder go for other jobs; a second call does nothing."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # A run that failed before it put anything there leaves no mark, which would refuse the next one.
        if kind is not None and not self._run["contents"]:
            (self.path / RUN_FILE).unlink(missing_ok=True)
        self.close()

    @property
    def run(self) -> dict[str, Any]:
        """What `run.json` says (a copy)."""
        return dict(self._run)

    def _write(self) -> None:
        atomic_write_json(self.path / RUN_FILE, self._run)


def add_to_run(folder: str | os.PathLike[str], name: str) -> Path:
    """The path of one more file or folder of the finished run in `folder`, listed in its `run.json` as the run's own.

    Raises `MissingError` where `folder` holds no run.
    """
    marker = Path(folder) / RUN_FILE
    run = read_record(marker, "run's record", needed=("contents",))
    _check_run(run, marker)
    if name not in run["contents"]:
        run["contents"].append(name)
        atomic_write_json(marker, run)
    return Path(folder) / name


def versions() -> dict[str, str]:
    """The versions and the number of threads that a result depends on, for `run.json`."""
    return {
        "image2video": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
    }


def _check_run(run: Mapping[str, Any], marker: Path) -> None:
    """Refuse a record of another form than a run writes."""
    contents, resumes = run.get("contents", []), run.get("resumes", 0)
    if not isinstance(contents, list) or not all(isinstance(name, str) for name in contents):
        raise InputError(f"{marker}: contents must be a list of names, got {contents!r:.200}; restore it")
    if not isinstance(resumes, int):
        raise InputError(f"{marker}: resumes must be a whole number, got {resumes!r:.80}; restore it")


def _is_name(value: str) -> bool:
    """Whether a text is the name of a file or folder, without a folder before it."""
    if not value or Path(value).name != value:
        return False
    try:
        return "\0" not in value and len(os.fsencode(user_path(value))) < 256
    except InputError:
        return False


def _is_partial(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(".part")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
