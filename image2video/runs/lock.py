"""One job per run folder: the kernel holds the lock, and frees it when its process ends in whatever way."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import threading
import time
import warnings
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from image2video.errors import ExistsError, StateError
from image2video.runs.atomic import writing
from image2video.runs.mounts import unshared_locks

LOCK_FILE = ".image2video.lock"
"""Names the job that writes into the folder, while it does: gone when that ends by itself, free when it is killed."""


@dataclass
class _Held:
    """A lock of this process: its open file (None on a file system without locks), who took it, and how often."""

    descriptor: int | None
    thread: int
    times: int = 1


_HELD: dict[Path, _Held] = {}
_GUARD = threading.RLock()  # reentrant: an object may be collected, and let its lock go, while its thread is in here
_TOLD: set[str] = set()


class FolderLock:
    """Holds a folder for the job that runs in this thread; another process or thread is refused.

    A thread that holds a folder may hold it again, as a command does and the training inside of it; it is free when
    all have let go. On a file system without locks, or with locks that other machines do not see, a warning says so.

    Args:
        folder: made where it does not exist.
        wanted: False does nothing: for the processes of a job beside the main one.

    Raises:
        ExistsError: `folder` is a file.
        StateError: another job holds the folder; the message names its process and its machine.
        WriteError: the lock file cannot be written.

    Example:
        >>> import tempfile
        >>> with FolderLock(tempfile.mkdtemp()) as lock:
        ...     (lock.folder / "weights.bin").write_bytes(b"1")
        1

    """

    def __init__(self, folder: str | os.PathLike[str], *, wanted: bool = True) -> None:
        self.folder = Path(folder)
        self._release: weakref.finalize | None = None
        if not wanted:
            return
        if self.folder.exists() and not self.folder.is_dir():
            raise ExistsError(f"{self.folder} is a file; choose a folder for the results")
        path = Path(os.path.realpath(self.folder)) / LOCK_FILE
        made = not path.parent.exists()
        _take(path, self.folder)
        # Also when an error, or the end of the program, lets the object go.
        self._release = weakref.finalize(self, _let_go, path, made)

    def release(self) -> None:
        """Let the folder go; a second call does nothing."""
        if self._release is not None:
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _take(path: Path, folder: Path) -> None:
    """Lock `path`, or count once more where this thread holds it."""
    with _GUARD:
        held = _HELD.get(path)
        if held is None:
            _HELD[path] = _Held(_locked(path, folder), threading.get_ident())
        elif held.thread == threading.get_ident():
            held.times += 1
        else:
            raise _busy(path, folder)


def _let_go(path: Path, made: bool) -> None:
    """Count once less; the last one frees the lock and removes its file, and a folder that was made for it alone."""
    with _GUARD:
        held = _HELD.get(path)
        if held is None:  # a forked process, whose parent holds it
            return
        held.times -= 1
        if held.times:
            return
        del _HELD[path]
        if held.descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(held.descriptor, 0)  # where the file cannot be removed it names nobody
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(held.descriptor)
        if made:
            with contextlib.suppress(OSError):  # it is not empty: there are results
                path.parent.rmdir()


def _locked(path: Path, folder: Path) -> int | None:
    """The open lock file, once it is ours; None with a warning where the file system has no locks."""
    from filelock import lock_descriptor  # late: `import image2video` imports torch and nothing heavier

    while True:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            free = lock_descriptor(descriptor, blocking=False)
        except OSError as error:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            _warn(f"{folder} cannot be locked ({error.strerror or error})")
            return None
        if free and _stands_at(path, descriptor):
            break
        os.close(descriptor)
        if not free:
            raise _busy(path, folder)
    os.ftruncate(descriptor, 0)  # a killed job leaves its name
    os.write(descriptor, _own_name().encode())
    where = unshared_locks(path)
    if where is not None:
        _warn(f"locks on {where} are not seen by other machines")
    return descriptor


def _stands_at(path: Path, descriptor: int) -> bool:
    """Whether an open file still has its name: the job before removes it when it ends."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _own_name() -> str:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return f"process {os.getpid()} on {platform.node() or 'a machine without a name'} since {now}"


def _busy(path: Path, folder: Path) -> StateError:
    """The error that names who holds a lock."""
    holder = ""
    for _ in range(20):  # the job may have taken it a moment ago
        with contextlib.suppress(OSError), path.open("rb") as file:
            holder = file.read(200).decode(errors="replace")
        if holder:
            break
        time.sleep(0.01)
    return StateError(
        f"{folder} is in use by {holder or 'another process'}; wait until that has ended, or choose another folder"
    )


def _warn(what: str) -> None:
    """Say once that a second job is not refused."""
    if what not in _TOLD:
        _TOLD.add(what)
        warnings.warn(f"{what}: a second job that writes there is not refused; start only one", stacklevel=5)


def _forget() -> None:
    """In a forked process, such as a worker that loads images: it must not keep the lock of a job that was killed."""
    global _GUARD
    _GUARD = threading.RLock()
    for held in _HELD.values():
        if held.descriptor is not None:
            os.close(held.descriptor)
    _HELD.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget)
