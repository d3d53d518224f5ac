"""Whatever a file or an option holds, a command answers in one line with the exit code 2: no traceback, no hang."""

import os
import re
import sys
from pathlib import Path

import pytest

from image2video.cli import main

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))
AFTER = ("--data", "npz:none.npz")  # what a config that can be read ends with
CONFIGS = {
    "bomb.yaml": (BOMB, "at most 20000 values"),
    "broken.yaml": ("a: [", "line 2, column 1"),
    "binary.yaml": (b"\xff\xfe\x00", "must be UTF-8 text"),
    "list.yaml": ("[1, 2]", "must hold options as NAME: VALUE, got a list"),
    "empty.yaml": ("", "must hold options as NAME: VALUE"),
    "time.yaml": ("lr: !!timestamp 2020-13-45", "the tag .* is not read here"),
    "date.yaml": ("lr: 2020-13-45", "--lr must be a finite number or null, got 2020-13-45"),
    "digits.yaml": ("seed: " + "9" * 5000, "a number may have at most 100 characters"),
    "deep.yaml": ("[" * 5000, "nest"),
    "key.yaml": ("{3: 4}", "the names of options are texts, got 3"),
    "big.yaml": ("a: " + "x" * 2_000_000, "at most 1000000 bytes"),
    "unknown.yaml": ("nonsense: 1", "does not accept option 'nonsense'"),
    "nested.yaml": ("config: broken.yaml", "broken.yaml|none.npz"),
    "null.yaml": ("label_smoothing: null", "--label-smoothing must have a value, got null; leave it out for 0.1"),
    "good.yaml": ("lr: 0.1\nmodel_kwargs: {a: 1}", "no file none.npz"),
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line that a command refuses its arguments with."""
    try:
        code = main(argv)
    except SystemExit as ended:
        code = ended.code
    said = capsys.readouterr().err
    assert code == 2, said
    assert said.count("\n") == 1
    assert "Traceback" not in said
    assert len(said) < 10_000
    return said


@pytest.mark.parametrize("name", CONFIGS)
def test_configs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    content, message = CONFIGS[name]
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    said = refused(capsys, "train", "--config", name, *AFTER)
    assert re.search(message, said), said


@pytest.mark.parametrize(
    "name", ["none.yaml", ".", "pipe", "a" * 300, "caf\udce9.yaml", "a\0b", "~nobody-x/a", "{lr: 1}"]
)
def test_configs_that_are_no_files(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("pipe")
    assert "--config" in refused(capsys, "train", "--config", name, *AFTER)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("train", "--model-kwargs", BOMB), "--model-kwargs must be JSON"),
        (("train", "--model-kwargs", "[" * 4000), "--model-kwargs must be JSON"),
        (("train", "--mean", "9" * 5000), "--mean must be a list"),
        (("train", "--seed", "9" * 5000), "--seed"),
        (("train", "--seed", "0b_"), "--seed"),
        (("train", "--std", "[1,2"), "--std must be a list"),
        (("train", "--data", "npz:~nobody-x/a.npz"), "cannot be used"),
        (("train", "--data", "npz:" + "a" * 5000), "no file"),
        (("train", "--data", "x" * 5000), "unknown data source"),
        (("train", "--data", "folder:a\0"), "NUL"),
        (("train", "--data", "torchvision:CIFAR10@~nobody-x"), "cannot be used"),
        (("train", "--augment", "a" * 5000, "--data", "digits"), "at most 1000 characters"),
        (("spaces", "pipe.yaml"), "is not a file"),
        (("spaces", "caf\udce9.yaml"), "there is no search space file"),
        (("spaces", "a" * 300 + ".yaml"), "File name too long"),
        (("show", "--image", "a" * 300), "File name too long|no image at"),
        (("show", "--image", "caf\udce9.png"), "no image at"),
        (("show", "--image", "pipe.yaml"), "no image at"),
        (("reproduce", "~nobody-x/a.yaml"), "cannot be used"),
        (("evaluate", "--weights", "caf\udce9"), "no weights at"),
        (("presets", "a" * 10_000), "unknown preset"),
    ],
)
def test_options(argv: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("pipe.yaml")
    argv = argv if "--data" in argv or argv[0] != "train" else (*argv, *AFTER)
    said = refused(capsys, *argv)
    assert re.search(message, said), said


def test_paths_that_are_no_utf8_are_printed_with_escapes(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    if sys.platform != "linux":
        pytest.skip("only there may any byte stand in a name")
    Path("caf\udce9.yaml").write_text("ops: [rotate, scale]")
    assert main(["spaces", "caf\udce9.yaml"]) == 0
    assert rb"caf\udce9" in capsysbinary.readouterr().out
