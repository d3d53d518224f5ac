"""Runs that are killed at any step of any write go on from a whole file, and so do those with a damaged one.

A kill is an exception that nothing catches, raised at one call of the file system out of all that the writes make:
what a process that ends there leaves behind is what stands on the disk at that moment.
"""

import os
import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from image2video.clip.genotype import Genotype
from image2video.errors import Image2VideoError
from image2video.runs import atomic
from image2video.runs.folders import OutputDirectory, atomic_torch_save, atomic_write_json, read_json, torch_load_last

CALLS = ("fsync", "replace", "link", "open")
STEPS = 2


class Killed(BaseException):
    """The end of the process."""


class Disk:
    """Counts the calls of the file system, and ends the process at one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls, self.last = 0, -1
        for name in CALLS:
            call = (lambda handle: None) if name == "fsync" else getattr(os, name)  # the disk itself stays whole here
            monkeypatch.setattr(atomic.os, name, self._watched(call))

    def _watched(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            self._count()
            result = call(*args, **kwargs)
            self._count()
            return result

        return watched

    def _count(self) -> None:
        self.calls += 1
        if self.calls == self.last:
            raise Killed


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def run(folder: Path, done: list[int]) -> None:
    """A run of `STEPS` steps that goes on where it was; `done` is the last step whose checkpoint was written."""
    out = OutputDirectory(folder, "search", resume=True)
    path = folder / "state.pt"
    first = 0
    if any(folder.glob("state*.pt")):
        first = torch_load_last(path)["step"] + 1
    for step in range(first, STEPS):
        assert out / "state.pt"
        atomic_write_json(out / "scores.json", {"steps": list(range(step + 1))})
        # Last, as in every run of the library: the checkpoint makes a step count.
        atomic_torch_save(path, {"step": step, "weights": torch.full((50,), float(step))}, keep_previous=True)
        done[0] = step
    Genotype.parse("rotate(10)").save(out / "genotype.json")
    out.finish(steps=STEPS)


def check_whole(folder: Path, done: int) -> None:
    """What stands in the folder is whole: the last checkpoint that was written, or the one that was being written."""
    if (folder / "run.json").exists():
        assert read_json(folder / "run.json")["kind"] == "search"
    if done >= 0:
        saved = torch_load_last(folder / "state.pt")
        assert done <= saved["step"] <= done + 1
        assert torch.equal(saved["weights"], torch.full((50,), float(saved["step"])))
    if (folder / "scores.json").exists():
        steps = read_json(folder / "scores.json")["steps"]
        assert steps == list(range(len(steps)))


def finished(folder: Path) -> dict[str, Any]:
    return {
        "scores": read_json(folder / "scores.json"),
        "genotype": str(Genotype.load(folder / "genotype.json")),
        "state": torch_load_last(folder / "state.pt")["step"],
        "run": read_json(folder / "run.json")["state"],
        "names": sorted(path.name for path in folder.iterdir()),
    }


def kill_and_go_on(folder: Path, disk: Disk, moments: Iterator[int]) -> int:
    """Kill the run at each of the moments, then let it end; the number of kills."""
    done, kills = [-1], 0
    for moment in moments:
        disk.calls, disk.last = 0, moment
        try:
            run(folder, done)
        except Killed:
            kills += 1
        disk.last = -1
        check_whole(folder, done[0])
    run(folder, done)
    return kills


def test_a_kill_at_every_single_moment(tmp_path: Path, disk: Disk) -> None:
    run(tmp_path / "whole", [-1])
    moments = disk.calls
    assert moments > 30
    expected = finished(tmp_path / "whole")
    for moment in range(1, moments + 1):
        folder = tmp_path / str(moment)
        assert kill_and_go_on(folder, disk, iter([moment])) == 1
        assert finished(folder) == expected


def test_kills_of_runs_that_were_killed_before(tmp_path: Path, disk: Disk) -> None:
    several_kills(tmp_path, disk, 12)


@pytest.mark.slow
def test_many_kills(tmp_path: Path, disk: Disk) -> None:
    several_kills(tmp_path, disk, int(os.environ.get("IMAGE2VIDEO_FUZZ", "10000")) // 100)


def several_kills(tmp_path: Path, disk: Disk, count: int) -> None:
    run(tmp_path / "whole", [-1])
    expected, kills = finished(tmp_path / "whole"), 0
    for number in range(count):
        draw = random.Random(number)
        folder = tmp_path / str(number)
        kills += kill_and_go_on(folder, disk, iter([draw.randrange(1, 50) for _ in range(draw.randrange(1, 6))]))
        assert finished(folder) == expected
    assert kills > count


def test_a_checkpoint_that_is_damaged_anywhere_gives_way_to_the_one_before(tmp_path: Path, disk: Disk) -> None:
    """One flipped bit, or a cut, anywhere: the step before it with a warning, never other numbers."""
    path = tmp_path / "state.pt"
    for step in (0, 1):
        value = {"step": step, "weights": torch.full((50,), float(step))}
        atomic_torch_save(path, value, keep_previous=True)
    whole, previous = path.read_bytes(), (tmp_path / "state.previous.pt").read_bytes()
    found = []
    for number in range(80):
        draw = random.Random(number)
        place = draw.randrange(len(whole))
        flipped = whole[:place] + bytes([whole[place] ^ (1 << draw.randrange(8))]) + whole[place + 1 :]
        path.write_bytes(draw.choice((flipped, whole[:place])))
        (tmp_path / "state.previous.pt").write_bytes(previous)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                saved = torch_load_last(path)
            except Image2VideoError as error:
                pytest.fail(f"{number}: {error}")
        assert torch.equal(saved["weights"], torch.full((50,), float(saved["step"])))
        found.append(saved["step"])
    assert 0 < found.count(1) < found.count(0)  # a flip in what the format leaves unused harms nothing
