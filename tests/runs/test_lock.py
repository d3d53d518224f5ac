"""One job per folder: the second is refused by process and machine, and a killed one holds nothing."""

import errno
import os
import platform
import re
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import filelock
import pytest
from forked import FORKS

from image2video.errors import ExistsError, Image2VideoError, StateError
from image2video.runs import lock
from image2video.runs.folders import OutputDirectory, WriteError, atomic_write_text
from image2video.runs.lock import LOCK_FILE, FolderLock
from image2video.runs.mounts import unshared_locks


def hold(folder: Path, told: Connection) -> None:
    """In a process of its own: hold a folder, and tell the number of a process that loads images."""
    lock = FolderLock(folder)
    worker = os.fork()  # it outlives a killed parent
    if worker:
        told.send(worker)
    time.sleep(600)
    lock.release()


def in_thread(work: Callable[[], object]) -> Image2VideoError | None:
    """The error of ours that `work` raises in another thread; None where it raises none."""
    found: list[Image2VideoError] = []

    def run() -> None:
        try:
            work()
        except Image2VideoError as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0] if found else None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_second_process_is_refused_by_name_until_the_first_is_killed(tmp_path: Path) -> None:
    ours, its = FORKS.Pipe()
    job = FORKS.Process(target=hold, args=(tmp_path, its))
    job.start()
    worker = ours.recv()
    try:
        for how in ({}, {"resume": True}, {"overwrite": True}):
            who = rf"is in use by process {job.pid} on {re.escape(platform.node())} since \d{{4}}-"
            with pytest.raises(StateError, match=rf"{who}.*; wait until that has ended, or choose another folder"):
                OutputDirectory(tmp_path, "train", **how)
        assert os.listdir(tmp_path) == [LOCK_FILE]  # a refused job has changed nothing
        job.kill()
        job.join()
        os.kill(worker, 0)  # it is alive, and holds nothing
        OutputDirectory(tmp_path, "train", resume=True).finish()
        assert os.listdir(tmp_path) == ["run.json"]  # the name that the killed one left is gone too
    finally:
        job.kill()
        os.kill(worker, signal.SIGKILL)
        ours.close()
        its.close()


def test_another_thread_is_refused_and_the_own_one_may_hold_it_again(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        inner = FolderLock(tmp_path / ".." / tmp_path.name)
        error = in_thread(lambda: FolderLock(tmp_path))
        assert isinstance(error, StateError)
        assert f"process {os.getpid()} on {platform.node()}" in str(error)
        inner.release()
        inner.release()
        assert in_thread(lambda: FolderLock(tmp_path)) is not None
    assert in_thread(lambda: FolderLock(tmp_path).release()) is None


def test_nothing_is_left_of_a_lock(tmp_path: Path) -> None:
    with FolderLock(tmp_path / "new" / "run"):
        assert platform.node() in (tmp_path / "new" / "run" / LOCK_FILE).read_text()
    assert os.listdir(tmp_path / "new") == []
    with FolderLock(tmp_path / "run") as held:
        atomic_write_text(held.folder / "a.txt", "a")
    assert os.listdir(tmp_path / "run") == ["a.txt"]
    with FolderLock(tmp_path / "nothing", wanted=False):
        assert not (tmp_path / "nothing").exists()


def test_an_object_that_is_dropped_lets_go(tmp_path: Path) -> None:
    held = FolderLock(tmp_path)
    assert in_thread(lambda: FolderLock(tmp_path)) is not None
    del held
    assert in_thread(lambda: FolderLock(tmp_path).release()) is None


def test_a_run_holds_its_folder_until_it_is_done_or_fails(tmp_path: Path) -> None:
    def fail() -> None:
        with OutputDirectory(tmp_path, "train"):
            assert in_thread(lambda: OutputDirectory(tmp_path, "train", resume=True)) is not None
            raise KeyError("a run that fails")

    with pytest.raises(KeyError, match="a run that fails"):
        fail()
    folder = OutputDirectory(tmp_path, "train", resume=True)
    assert in_thread(lambda: OutputDirectory(tmp_path, "train", resume=True)) is not None
    folder.finish()
    assert in_thread(lambda: OutputDirectory(tmp_path, "train", resume=True).close()) is None
    # A folder that is refused for another reason is held by nobody.
    assert isinstance(in_thread(lambda: OutputDirectory(tmp_path, "train")), ExistsError)
    assert in_thread(lambda: FolderLock(tmp_path).release()) is None


def test_a_lock_that_the_job_before_removes_in_between_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job before ends between opening the file and locking it: the open one has no name any more."""
    real, calls = filelock.lock_descriptor, []

    def slow(descriptor: int, *, blocking: bool) -> bool:
        if not calls:
            (tmp_path / LOCK_FILE).unlink()
        calls.append(descriptor)
        return real(descriptor, blocking=blocking)

    monkeypatch.setattr(filelock, "lock_descriptor", slow)
    with FolderLock(tmp_path):
        assert len(calls) == 2
        assert f"process {os.getpid()}" in (tmp_path / LOCK_FILE).read_text()


def test_a_file_system_without_locks_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(descriptor: int, *, blocking: bool) -> bool:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(filelock, "lock_descriptor", without)
    with pytest.warns(UserWarning, match=r"cannot be locked \(No locks available\): a second job .* start only one"):
        folder = OutputDirectory(tmp_path, "train")
    assert os.listdir(tmp_path) == ["run.json"]
    assert in_thread(lambda: FolderLock(tmp_path)) is not None  # of this process it is known all the same
    folder.finish()


def test_locks_that_other_machines_do_not_see_are_named_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "unshared_locks", lambda path: "/home (nfs)")
    monkeypatch.setattr(lock, "_TOLD", set())
    with pytest.warns(UserWarning, match=r"locks on /home \(nfs\) are not seen by other machines: a second job"):
        FolderLock(tmp_path / "a").release()
    FolderLock(tmp_path / "b").release()  # a second warning would be an error


MOUNTS = """22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /home rw,relatime shared:2 - nfs4 server:/home rw,vers=4.2,local_lock=none
31 22 0:41 / /scratch rw - nfs server:/scratch rw,vers=3,nolock,local_lock=all
32 31 0:42 / /scratch/my\\040runs rw - ext4 /dev/vdb rw
33 22 0:43 / /far rw,nosuid - fuse.sshfs user@host: rw,user_id=0
34 22 0:44 / /lustre rw - lustre mds:/fs rw,localflock
35 34 0:45 / /lustre rw - lustre mds:/fs rw,flock
a line of another kind
"""


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/home/me/run", None),
        ("/scratch/run", "/scratch (nfs)"),
        ("/scratch/my runs/a", None),
        ("/scratches/a", None),
        ("/far/a", "/far (fuse.sshfs)"),
        ("/lustre/a", None),
    ],
)
def test_which_mounts_keep_locks_to_themselves(path: str, found: str | None) -> None:
    assert unshared_locks(Path(path), MOUNTS) == found


def test_the_mounts_of_this_machine_are_read(tmp_path: Path) -> None:
    assert unshared_locks(tmp_path) is None


def test_a_lock_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).mkdir()
    with pytest.raises(WriteError, match=r"could not write .*\.image2video\.lock"):
        FolderLock(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ExistsError, match="file is a file"):
        FolderLock(tmp_path / "file")
