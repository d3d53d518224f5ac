"""SIGKILL at every moment of a save: what is left goes on from the last whole checkpoint."""

import os
import signal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from image2video.errors import InputError
from image2video.runs import atomic
from image2video.runs.checkpoints import has_checkpoint, load_checkpoint
from image2video.runs.folders import atomic_torch_save

# Python 3.12 warns of forks in a process with threads; the child only writes files and is killed.
pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:no checkpoint at:UserWarning", "ignore:expected a file:UserWarning"),
    pytest.mark.filterwarnings("ignore:.* is not a readable checkpoint:UserWarning"),
]
CALLS = ("open", "fsync", "link", "unlink", "replace", "close")


class KillingOs:
    """The module `os` that ends its process by SIGKILL before its `at`-th call that reaches the disk."""

    def __init__(self, real: ModuleType, at: int) -> None:
        self._real, self._left = real, at

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._real, name)
        if name not in CALLS:
            return value

        def called(*args: Any, **options: Any) -> Any:
            if self._left == 0:
                self._real.kill(self._real.getpid(), signal.SIGKILL)
            self._left -= 1
            return value(*args, **options)

        return called


def killed_in(work: Any, at: int) -> bool:
    """Whether `work`, in a process of its own, was killed before its `at`-th call."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            atomic.os = KillingOs(os, at)  # type: ignore[attr-defined]
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def save(path: Path, step: int) -> None:
    atomic_torch_save(path, {"step": step}, keep_previous=True)


def test_a_kill_at_any_moment_of_a_save_leaves_the_one_before_or_the_new_one(tmp_path: Path) -> None:
    seen, at, killed = set(), 0, True
    while killed:
        path = tmp_path / str(at) / "last.pt"
        save(path, 1)
        save(path, 2)
        killed = killed_in(lambda path=path: save(path, 3), at)
        left = load_checkpoint(path)
        assert left is not None
        seen.add(left["step"])
        save(path, 4)  # and the run goes on
        assert load_checkpoint(path) == {"step": 4}
        at += 1
    assert at > 5
    assert seen == {2, 3}


def test_a_kill_at_any_moment_of_the_first_save_leaves_nothing_or_the_whole(tmp_path: Path) -> None:
    seen, at, killed = [], 0, True
    while killed:
        path = tmp_path / str(at) / "last.pt"
        killed = killed_in(lambda path=path: save(path, 1), at)
        seen.append(load_checkpoint(path))
        at += 1
    assert {"step": 1} in seen
    assert None in seen
    assert all(found in (None, {"step": 1}) for found in seen)


def test_a_kill_at_any_moment_of_a_resume_from_a_damaged_checkpoint_goes_on_from_the_one_before(tmp_path: Path) -> None:
    at, killed = 0, True
    while killed:
        path = tmp_path / str(at) / "last.pt"
        save(path, 1)
        save(path, 2)
        path.write_bytes(path.read_bytes()[:100])

        def resume(path: Path = path) -> None:
            assert load_checkpoint(path) == {"step": 1}
            save(path, 3)

        killed = killed_in(resume, at)
        left = load_checkpoint(path)
        assert left is not None
        assert left["step"] in (1, 3)
        at += 1
    assert at > 5


@pytest.mark.parametrize("left", [("last.pt",), ("last.previous.pt",), ("last.previous.pt", "last.damaged.pt")])
def test_any_good_one_that_is_left_is_gone_on_from(tmp_path: Path, left: tuple[str, ...]) -> None:
    for name in left:
        torch.save({"step": 5}, tmp_path / name)
    assert has_checkpoint(tmp_path / "last.pt")
    assert load_checkpoint(tmp_path / "last.pt") == {"step": 5}


def test_nothing_is_no_checkpoint_and_a_damaged_one_alone_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    assert not has_checkpoint(path)
    assert load_checkpoint(path) is None
    (tmp_path / "last.damaged.pt").write_bytes(b"half")
    with pytest.raises(InputError, match=r"last\.damaged\.pt is damaged .* restore a copy as last\.pt, or begin anew"):
        load_checkpoint(path)
    path.write_bytes(b"half")
    with pytest.raises(InputError, match=r"last\.pt is not a readable checkpoint"):
        load_checkpoint(path)
    (tmp_path / "last.previous.pt").write_bytes(b"half")
    with pytest.raises(InputError, match=r"last\.previous\.pt is not a readable checkpoint"):
        load_checkpoint(path)
