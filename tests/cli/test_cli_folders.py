"""The folders that commands write: one job at a time, and nothing in them that names the machine."""

from __future__ import annotations

import platform
import socket
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reproduce_cases import pretended, table  # noqa: F401 - a fixture

import image2video
from image2video.cli import main
from image2video.runs.lock import LOCK_FILE, FolderLock

STORY = ("--deployments", "false", "--arms", '["bare","searched"]')
CPU = ("--device", "cpu")
NETWORK = ("--data", "npz:noise.npz", "--holdout", "0.2", "--model", "cifar_resnet8", "--batch-size", "16")
CLIP = ("--frames", "2", "--fusion", "tsm")
SEARCH = (
    "--epochs",
    "1",
    "--tune-epochs",
    "0",
    "--space",
    "small.yaml",
    "--compare",
    "random:1",
    "--final-epochs",
    "1",
)
PLAIN = ("--model", "cifar_resnet8", "--model-kwargs", '{"num_classes": 3, "in_chans": 1}', "--size", "16")
COMMANDS: dict[str, list[str]] = {
    "train": ["train", *NETWORK, *CLIP, "--epochs", "1", "--genotype", "rotate(8)", *CPU],
    "search": ["search", *NETWORK, *CLIP, *SEARCH, "--final-seeds", "1", *CPU],
    "demo": ["demo", "--train-images", "40", "--epochs", "1", "--seeds", "1", *STORY, *CPU],
    "rf": ["rf", *PLAIN, *CLIP, "--genotype", "rotate(8)", "--layer", "layer3", "--count", "3", *CPU],
    "reproduce": ["reproduce", "own.yaml", *CPU],
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with images of noise, a small space and a small table."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8), np.arange(40) % 4
    np.savez("noise.npz", x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])
    Path("small.yaml").write_text("name: small\nops: {rotate: 8, scale: 1.1, identity: null}\nnodes: 2\n")
    table(tmp_path)
    return tmp_path


@contextmanager
def held_by_another(folder: Path) -> Iterator[None]:
    """The folder is held by another thread, to which a lock is what it is to another process."""
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with FolderLock(folder):
            taken.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(30)
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_second_job_is_refused_and_changes_nothing(here: Path, command: str, capsys: pytest.CaptureFixture) -> None:
    with held_by_another(here / "out"):
        assert main([*COMMANDS[command], "--out", "out"]) == 2
        error = capsys.readouterr().err
        assert "error: out is in use by process" in error
        assert "choose another folder" in error
        assert [path.name for path in (here / "out").iterdir()] == [LOCK_FILE]


def test_the_comparison_of_a_search_has_a_lock_of_its_own(here: Path, capsys: pytest.CaptureFixture) -> None:
    folder = here / "out" / "comparison-1-epochs"
    with held_by_another(folder):
        # The folder of the search itself is free, but for the comparison's inside of it.
        assert main([*COMMANDS["search"], "--out", "out", "--overwrite"]) == 2
    assert "comparison-1-epochs is in use by process" in capsys.readouterr().err
    assert not (folder / "result.json").exists()


@pytest.mark.usefixtures("pretended")
def test_who_only_looks_at_a_table_is_not_refused(here: Path) -> None:
    with held_by_another(here / "out"):
        assert main([*COMMANDS["reproduce"], "--out", "out", "--report-only"]) == 0
    assert (here / "out" / "own-smoke.html").is_file()


def contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """The names and the bytes of all files below a folder, those inside archives and compressed images too."""
    for file in sorted(path.rglob("*")):
        yield f"the name of {file.name}", file.name.encode()
        if not file.is_file():
            continue
        data = file.read_bytes()
        yield str(file), data
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                for name in archive.namelist():
                    yield f"{file}: {name}", name.encode() + archive.read(name)
        if file.suffix == ".png":
            with Image.open(file) as picture:
                yield f"the text of {file}", repr(picture.info).encode()


@pytest.mark.filterwarnings("ignore:.*chose the identity:UserWarning")
@pytest.mark.parametrize(
    "command", [pytest.param(name, marks=() if name in ("train", "search") else pytest.mark.slow) for name in COMMANDS]
)
def test_outputs_hold_no_host_no_process_and_no_absolute_path(
    here: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was given is relative: so is all that is written, whatever the machine and its folders are called."""
    monkeypatch.setattr(platform, "node", lambda: "secret-host")
    monkeypatch.setattr(socket, "gethostname", lambda: "secret-host")
    monkeypatch.setenv("HOSTNAME", "secret-host")
    assert main([*COMMANDS[command], "--out", "out"]) == 0
    assert LOCK_FILE not in {path.name for path in (here / "out").rglob("*")}
    package = Path(image2video.__file__).parent.parent
    private = {"secret-host", str(here), str(Path.home()) + "/", str(package), sys.prefix, tempfile.gettempdir()}
    found = [f"{where}: {word}" for where, data in contents(here / "out") for word in private if word.encode() in data]
    assert not found
    assert sum(1 for _ in contents(here / "out")) > 10
