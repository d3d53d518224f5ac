"""Files are whole or not there, errors name them, and no run swallows another."""

import errno
import itertools
import json
import os
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
import torch
from forked import FORKS
from torch import nn

from image2video.errors import ExistsError, InputError, MissingError
from image2video.runs import atomic
from image2video.runs.folders import (
    OutputDirectory,
    WriteError,
    add_to_run,
    atomic_torch_save,
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    read_json,
    torch_load,
    torch_load_last,
)
from image2video.runs.lock import LOCK_FILE


def names(folder: Path) -> list[str]:
    """What a folder holds, beside the lock of a run that a test still has open."""
    return sorted(path.name for path in folder.iterdir() if path.name != LOCK_FILE)


def test_a_write_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "sub" / "a.txt"
    atomic_write_text(target, "first")
    atomic_write_text(target, "sécond")
    assert target.read_bytes() == "sécond".encode()
    assert names(target.parent) == ["a.txt"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    target = tmp_path / "a.txt"
    atomic_write_text(target, "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, step, full)
    with pytest.raises(WriteError, match=r"a\.txt, which needs about 3 bytes: no space left.*before is unchanged"):
        atomic_write_text(target, "new")
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def write_again_and_again(target: Path, go: Event) -> None:
    """In a process of its own, until it is killed."""
    for i in itertools.count():
        atomic_write_json(target, {"i": [i] * 20000})
        if i == 3:
            go.set()


def test_a_kill_in_the_middle_of_writes_leaves_a_whole_file(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    go = FORKS.Event()
    process = FORKS.Process(target=write_again_and_again, args=(target, go))
    process.start()
    assert go.wait(60)
    process.kill()
    process.join()
    values = read_json(target)["i"]
    assert len(values) == 20000
    assert len(set(values)) == 1


def test_json_is_the_same_for_the_same_value_and_refuses_nan(tmp_path: Path) -> None:
    value = {"b": 0.1, "a": [1, None, "τ"]}
    atomic_write_json(tmp_path / "a.json", value)
    atomic_write_json(tmp_path / "b.json", dict(value))
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert read_json(tmp_path / "a.json") == value
    with pytest.raises(InputError, match=r"c\.json cannot be written as JSON"):
        atomic_write_json(tmp_path / "c.json", {"x": float("nan")})
    assert not (tmp_path / "c.json").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1,\n  b}', r"bad\.json, line 2, column 3"),
        (b"\xff{}", r"bad\.json must be UTF-8 text, got 0xff at byte 0"),
        (b"[" * 200_000, r"bad\.json is nested too deeply"),
        (b"", r"bad\.json, line 1, column 1"),
    ],
)
def test_bad_json_is_named_with_the_position(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_json(path)


def test_json_that_is_missing_or_too_large(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"there is no file .*none\.json"):
        read_json(tmp_path / "none.json")
    (tmp_path / "big.json").write_bytes(b" " * 100)
    with pytest.raises(InputError, match=r"big\.json must have at most 10 bytes"):
        read_json(tmp_path / "big.json", max_bytes=10)


def test_checkpoints_hold_no_code(tmp_path: Path) -> None:
    value = {"w": torch.arange(3.0), "n": 3, "list": [None, ("a", True)]}
    atomic_torch_save(tmp_path / "a.pt", value)
    loaded = torch_load(tmp_path / "a.pt")
    assert torch.equal(loaded.pop("w"), value.pop("w"))
    assert loaded == value
    with pytest.raises(InputError, match=r"b\.pt would hold more than tensors"):
        atomic_torch_save(tmp_path / "b.pt", {"f": Path("x")})
    assert not (tmp_path / "b.pt").exists()
    torch.save(Path("x"), tmp_path / "c.pt")
    (tmp_path / "d.pt").write_bytes(b"no torch file")
    for name in ("c.pt", "d.pt"):
        with pytest.raises(InputError, match=f"{name} is not a readable checkpoint .it is no torch file"):
            torch_load(tmp_path / name)


class Odd(dict):
    """A dict that torch refuses to read."""


def test_what_is_known_to_be_read_is_read(tmp_path: Path) -> None:
    weights = nn.Linear(2, 3).state_dict()  # an ordered dict with an attribute of its own
    ring: list[object] = [1, -(2**63), 2.5, "x", None, True]
    ring.append(ring)
    for index, value in enumerate((weights, ring, [(1, {"a": torch.ones(2, dtype=torch.bfloat16)})], (), {})):
        assert atomic._is_surely_read(value)
        torch.save(value, tmp_path / f"{index}.pt")
        torch_load(tmp_path / f"{index}.pt")


def test_what_is_not_known_to_be_read_is_tried(tmp_path: Path) -> None:
    tagged = torch.ones(2)
    tagged.path = Path("x")
    odd_weights = nn.Linear(2, 3).state_dict()
    odd_weights.note = Path("x")
    unknown = (tagged, odd_weights, Odd(a=1), [Path("x")], {Path("x"): 1}, 2**3000)
    for value in unknown:
        assert not atomic._is_surely_read(value)
        with pytest.raises(InputError, match="more than tensors and plain values"):
            atomic_torch_save(tmp_path / "a.pt", value)
    # What torch reads all the same is written.
    for value in (nn.Parameter(torch.ones(2)), 2**70, torch.float32, torch.Size([2])):
        assert not atomic._is_surely_read(value)
        atomic_torch_save(tmp_path / "a.pt", value)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    for step in range(3):
        atomic_torch_save(path, {"step": step}, keep_previous=True)
    assert names(tmp_path) == ["last.previous.pt", "last.pt"]
    assert torch_load_last(path) == {"step": 2}
    path.write_bytes(path.read_bytes()[:100])
    with pytest.warns(UserWarning, match=r"last\.pt is not a readable checkpoint.*last\.previous\.pt"):
        assert torch_load_last(path) == {"step": 1}
    assert names(tmp_path) == ["last.damaged.pt", "last.previous.pt"]  # the next save keeps the good one
    with pytest.warns(UserWarning, match=r"no checkpoint at .*last\.pt"):
        assert torch_load_last(path) == {"step": 1}
    (tmp_path / "last.previous.pt").write_bytes(b"")
    with pytest.raises(InputError, match=r"last\.previous\.pt"):
        torch_load_last(path)


def test_a_folder_is_claimed_at_once(tmp_path: Path) -> None:
    folder = OutputDirectory(tmp_path / "run", "search")
    folder.note(device="cpu")
    assert folder / "a" / "b.txt" == tmp_path / "run" / "a" / "b.txt"
    written = read_json(tmp_path / "run" / "run.json")
    assert written["kind"] == "search"
    assert written["state"] == "running"
    assert written["contents"] == ["a"]
    folder.finish(seconds=1.5)
    written = read_json(tmp_path / "run" / "run.json")
    assert (written["state"], written["seconds"], written["device"]) == ("done", 1.5, "cpu")


def test_a_run_that_fails_before_it_wrote_anything_leaves_no_mark(tmp_path: Path) -> None:
    def failing(*names: str) -> None:
        with OutputDirectory(tmp_path / "run", "search") as folder:
            for name in names:
                (folder / name).write_text("kept")
            raise ValueError("no luck")

    for _ in range(2):
        with pytest.raises(ValueError, match="no luck"):
            failing()
    with pytest.raises(ValueError, match="no luck"):
        failing("scores.txt")
    with pytest.raises(ExistsError, match="holds a run of 'search'"):
        failing()


def test_another_run_is_refused(tmp_path: Path) -> None:
    OutputDirectory(tmp_path, "search")
    with pytest.raises(ExistsError, match=r"holds a run of 'search'; choose another folder.*--overwrite.*--resume"):
        OutputDirectory(tmp_path, "search")
    with pytest.raises(ExistsError, match=r"holds a run of 'search', which 'train' cannot resume"):
        OutputDirectory(tmp_path, "train", resume=True)
    with pytest.raises(InputError, match="contradict"):
        OutputDirectory(tmp_path, "search", resume=True, overwrite=True)


def test_other_files_are_refused_and_never_deleted(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ExistsError, match=r"holds other files \(thesis\.tex"):
        OutputDirectory(tmp_path, "search")
    folder = OutputDirectory(tmp_path, "search", overwrite=True)
    atomic_write_text(folder / "scores.json", "{}")
    (folder / "checkpoint" / "x").parent.mkdir()
    (folder / "checkpoint" / "x").write_text("x")
    OutputDirectory(tmp_path, "train", overwrite=True)
    assert names(tmp_path) == ["run.json", "thesis.tex"]
    assert read_json(tmp_path / "run.json")["kind"] == "train"


def test_overwrite_stays_inside_the_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("mine")
    run = tmp_path / "run"
    OutputDirectory(run, "search")
    record = read_json(run / "run.json")
    atomic_write_json(run / "run.json", {**record, "contents": ["../outside.txt", "..", ".", str(outside)]})
    OutputDirectory(run, "search", overwrite=True)
    assert outside.read_text() == "mine"
    assert names(run) == ["run.json"]


def test_resume_goes_on_or_begins(tmp_path: Path) -> None:
    first = OutputDirectory(tmp_path / "run", "search", resume=True)
    assert not first.resumed
    atomic_write_text(first / "tau.json", "{}")
    (tmp_path / "run" / ".tau.json.123.part").write_bytes(b"half")
    second = OutputDirectory(tmp_path / "run", "search", resume=True)
    assert second.resumed
    assert second.run["started"] == first.run["started"]
    assert second.run["resumes"] == 1
    assert names(tmp_path / "run") == ["run.json", "tau.json"]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(ExistsError, match="out is a file"):
        OutputDirectory(tmp_path / "out", "search")
    with pytest.raises(WriteError, match="could not write"):
        atomic_write_bytes(tmp_path / "out" / "a.bin", b"1")


def test_a_file_added_later_goes_when_the_run_is_replaced(tmp_path: Path) -> None:
    OutputDirectory(tmp_path / "run", "train").finish()
    add_to_run(tmp_path / "run", "pretrained").mkdir()
    (add_to_run(tmp_path / "run", "pretrained") / "config.json").write_text("{}")
    assert read_json(tmp_path / "run" / "run.json")["contents"] == ["pretrained"]
    OutputDirectory(tmp_path / "run", "train", overwrite=True)
    assert names(tmp_path / "run") == ["run.json"]
    with pytest.raises(MissingError):
        add_to_run(tmp_path, "pretrained")


def test_a_folder_with_a_foreign_run_json_is_other_files(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"tool": "another"}))
    with pytest.raises(ExistsError, match=r"other files \(run\.json"):
        OutputDirectory(tmp_path, "search")
