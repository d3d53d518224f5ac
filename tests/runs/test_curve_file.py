"""Learning curves: TensorBoard reads them, a resumed run hides what it takes back, and no name gives the host away."""

import errno
import os
import platform
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from image2video.runs import curve_file
from image2video.runs.curve_file import CurveFile
from image2video.runs.folders import WriteError


def read(folder: Path, tag: str) -> list[tuple[int, float]]:
    found = EventAccumulator(str(folder))
    found.Reload()
    return [(point.step, point.value) for point in found.Scalars(tag)]


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    curves = CurveFile(tmp_path / "tensorboard")
    for step in range(4):
        curves.add_scalar("loss", 1 / (step + 1), step)
    curves.flush()
    assert read(tmp_path / "tensorboard", "loss") == [(0, 1.0), (1, 0.5), (2, pytest.approx(1 / 3)), (3, 0.25)]
    curves.close()
    resumed = CurveFile(tmp_path / "tensorboard", purge_step=2)  # in the same second
    resumed.add_scalar("loss", 7.0, 2)
    resumed.close()
    assert read(tmp_path / "tensorboard", "loss") == [(0, 1.0), (1, 0.5), (2, 7.0)]


def test_the_file_names_neither_host_nor_process(tmp_path: Path) -> None:
    curves = CurveFile(tmp_path)
    curves.add_scalar("loss", 1.0, 0)
    curves.close()
    (path,) = tmp_path.iterdir()
    for private in (platform.node(), str(os.getpid())):
        assert private not in path.name
        assert private.encode() not in path.read_bytes() or len(private) < 4


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, data: bytes) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(curve_file, "open", lambda *args: Full(), raising=False)
    with pytest.raises(WriteError, match=r"could not write .*events\.out\.tfevents.*: no space left"):
        CurveFile(tmp_path)
