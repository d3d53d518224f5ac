"""Files that other libraries write have their name when they are whole, and not before."""

import shutil
from pathlib import Path

import pytest

from image2video.errors import InputError
from image2video.runs.atomic import WriteError
from image2video.runs.folders import OutputDirectory
from image2video.runs.lock import LOCK_FILE
from image2video.runs.partial import whole_file


def test_a_file_takes_its_name_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "new" / "model.bin"
    with whole_file(target) as partial:
        partial.write_text("first")
        assert partial.name == "model.bin"
        assert not target.exists()
    assert target.read_text() == "first"
    assert [path.name for path in target.parent.iterdir()] == ["model.bin"]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "model.bin"
    target.write_text("before")

    def refused() -> None:
        with whole_file(target) as partial:
            partial.write_text("half")
            partial.with_name("beside").write_text("of another library")
            raise InputError("no good: try again")

    with pytest.raises(InputError, match="no good"):
        refused()
    assert target.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["model.bin"]


def test_a_refused_write_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")
    with pytest.raises(WriteError, match=r"could not write .*model\.bin"), whole_file(tmp_path / "taken" / "model.bin"):
        raise AssertionError("never reached")
    with pytest.raises(WriteError, match=r"could not write .*model\.bin"), whole_file(tmp_path / "model.bin"):
        pass  # nothing was written
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_threads_that_write_the_same_file_do_not_meet(tmp_path: Path) -> None:
    target = tmp_path / "model.bin"
    with whole_file(target) as first:
        first.write_text("first")
        with whole_file(target) as second:
            assert first != second
            second.write_text("second")
        assert target.read_text() == "second"
    assert target.read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["model.bin"]


def test_files_beside_it_take_their_places_with_it(tmp_path: Path) -> None:
    target, record = tmp_path / "model.bin", tmp_path / "model.json"
    record.write_text("before")
    with pytest.raises(WriteError, match=r"could not write .*model\.bin"), whole_file(target, [record]) as partial:
        partial.write_text("without a record")
    assert (record.read_text(), target.exists()) == ("before", False)
    with whole_file(target, [record]) as partial:
        partial.write_text("file")
        partial.with_name("model.json").write_text("record")
        assert record.read_text() == "before"
    assert (target.read_text(), record.read_text()) == ("file", "record")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.bin", "model.json"]


@pytest.mark.parametrize("how", ["resume", "overwrite"])
def test_a_kill_while_a_file_is_written_leaves_a_run_that_goes_on(tmp_path: Path, how: str) -> None:
    with OutputDirectory(tmp_path / "run", "search") as run:
        (run / "done.txt").write_text("kept")
        # A kill runs no `finally`: the hidden folder stays.
        writing = whole_file(run / "model.onnx")
        partial = writing.__enter__()
        partial.write_text("half")
        leftover = tmp_path / "copy"
        shutil.copytree(run.path, leftover)
        writing.__exit__(None, None, None)
    assert [path.name for path in leftover.rglob("*.onnx")] == ["model.onnx"]
    (leftover / LOCK_FILE).unlink(missing_ok=True)
    with OutputDirectory(leftover, "search", **{how: True}) as again:
        assert again.resumed == (how == "resume")
        assert not [*leftover.glob(".*.part")]
        assert (leftover / "done.txt").exists() == again.resumed
