"""Files that other libraries write have their name when they are whole, and not before."""

from pathlib import Path

import pytest

from image2video.errors import InputError
from image2video.runs.atomic import WriteError
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
