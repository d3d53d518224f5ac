"""The examples run, at their smallest."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from digit_networks import network

from image2video import training
from image2video.cli import main

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_finetune_trained_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = str(EXAMPLES / "finetune_trained_model.py")
    monkeypatch.setattr(sys, "argv", [path, "--train-images", "60", "--epochs", "1"])
    runpy.run_path(path, run_name="__main__")
    assert capsys.readouterr().out.count(" %") >= 3
    assert (tmp_path / "wrapped" / "model.safetensors").exists()


def test_search_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # What --compare trains after a search is what tests/cli/test_cli_search.py is about.
    smallest = ["--train-images", "60", "--epochs", "1", "--tune-epochs", "0", "--compare", "none", "--out", "runs"]
    assert main(["search", "--config", str(EXAMPLES / "search.yaml"), *smallest]) == 0
    assert (tmp_path / "runs" / "genotype.json").exists()


def test_quickstart_notebook(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    notebook = json.loads((EXAMPLES / "quickstart.ipynb").read_text())
    assert all(cell.get("outputs", []) == [] for cell in notebook["cells"])  # what it prints is the reader's own
    monkeypatch.setattr(training, "train", lambda net, *about: net.load_state_dict(network(0).state_dict()))
    code = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    exec(code.replace("candidates=24", "candidates=8"), {})
    printed = capsys.readouterr().out
    tilted, wrapped = (float(printed.split(text)[1].split(" %")[0]) for text in ("tilted: ", "the cost: "))
    assert wrapped > tilted + 5
    assert "Use it: VideoWrap(net, " in printed


def test_every_example_is_run_here() -> None:
    here = Path(__file__).read_text()
    names = [path.name for path in EXAMPLES.iterdir() if path.is_file()]
    assert names
    assert all(f'"{name}"' in here for name in names)
