"""The examples run, at their smallest."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from digit_networks import network
from few_digits import few_digits

from image2video import VideoWrap, training
from image2video.cli import main
from image2video.export import ExportConfig, export_model

few = pytest.fixture(few_digits)

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_finetune_trained_model(
    few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
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
    smallest = ["--train-images", "40", "--frames", "2", "--epochs", "1", "--tune-epochs", "0", "--compare", "none"]
    assert main(["search", "--config", str(EXAMPLES / "search.yaml"), *smallest, "--out", "runs"]) == 0
    assert (tmp_path / "runs" / "genotype.json").exists()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported file."""
    model = VideoWrap(network(0), "none", genotype="rotate(10)", T=3, input_size=(1, 16, 16)).eval()
    return export_model(model, tmp_path_factory.mktemp("served") / "model.pt2").path


def test_serve(served: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["serve.py", str(served), "--clients", "4", "--requests", "40"])
    runpy.run_path(str(EXAMPLES / "serve.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert printed.startswith("40 requests of 4 clients in ")
    assert float(printed.rpartition(" ")[2]) < 1e-4


def test_a_served_image_gets_its_own_answer_in_full_batches(served: Path) -> None:
    example = runpy.run_path(str(EXAMPLES / "serve.py"))
    model, sizes = example["load"](served), []

    def counted(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        if images[0].isnan().any():
            raise ArithmeticError("a damaged image")
        return model(images)

    images = torch.randn(20, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    server = example["BatchQueue"](counted, (1, 16, 16), max_batch=8, max_wait=0.2)
    answers = [server.submit(image) for image in images]
    found = torch.stack([answer.result(timeout=60) for answer in answers])
    torch.testing.assert_close(found, model(images), atol=1e-5, rtol=1e-5)
    assert sum(sizes) == 20
    assert max(sizes) == 8
    with pytest.raises(ValueError, match=r"an image must be \(1, 16, 16\), got \(1, 8, 8\)"):
        server.submit(torch.zeros(1, 8, 8))
    with pytest.raises(ArithmeticError, match="damaged"):
        server.submit(images[0] * float("nan")).result(timeout=60)
    last = server.submit(images[3])
    server.close()
    torch.testing.assert_close(last.result(timeout=0), found[3], atol=1e-5, rtol=1e-5)
    with pytest.raises(RuntimeError, match="closed"):
        server.submit(images[0])


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_file_of_a_fixed_number_of_images_is_served(
    batch_size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = VideoWrap(network(0), "none", genotype="rotate(10)", T=3, input_size=(1, 16, 16)).eval()
    path = export_model(model, tmp_path / "model.pt2", ExportConfig(batch_size=batch_size)).path
    monkeypatch.setattr(sys, "argv", ["serve.py", str(path), "--clients", "4", "--requests", "10"])
    runpy.run_path(str(EXAMPLES / "serve.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert float(printed.rpartition(" ")[2]) < 1e-4
    example, sizes = runpy.run_path(str(EXAMPLES / "serve.py")), []

    def counted(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        return model(images)

    server = example["BatchQueue"](counted, (1, 16, 16), batch_size=batch_size)
    images = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    answers = [server.submit(image) for image in images]
    found = torch.stack([answer.result(timeout=60) for answer in answers])
    server.close()
    torch.testing.assert_close(found, model(images), atol=1e-5, rtol=1e-5)
    assert set(sizes) == {batch_size}


@pytest.mark.parametrize("wrong", [lambda rows: rows[:0], lambda rows: rows.sum(), lambda rows: {"out": rows}])
def test_a_worker_outlives_outputs_without_a_row_per_image(wrong: Callable[[torch.Tensor], object]) -> None:
    example = runpy.run_path(str(EXAMPLES / "serve.py"))
    server = example["BatchQueue"](
        lambda images: wrong(images) if images.sum() > 0 else images.flatten(1), (1, 2, 3), workers=1, max_wait=0.0
    )
    with pytest.raises(ValueError, match="must return a tensor with a row for each of 1 images, got"):
        server.submit(torch.ones(1, 2, 3)).result(timeout=10)
    assert server.submit(torch.zeros(1, 2, 3)).result(timeout=10).shape == (6,)
    server.close()


def test_quickstart_notebook(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    notebook = json.loads((EXAMPLES / "quickstart.ipynb").read_text())
    assert all(cell.get("outputs", []) == [] for cell in notebook["cells"])  # what it prints is the reader's own
    monkeypatch.setattr(training, "train", lambda net, *about: net.load_state_dict(network(0).state_dict()))
    code = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    for written, smaller in (
        ("candidates=24", "candidates=8"),
        ("given, kept = slice(0, 400)", "given, kept = slice(0, 200)"),
    ):
        assert written in code
        code = code.replace(written, smaller)
    exec(code, {})
    printed = capsys.readouterr().out
    tilted, wrapped = (float(printed.split(text)[1].split(" %")[0]) for text in ("tilted: ", "the cost: "))
    assert wrapped > tilted + 5
    assert "Use it: VideoWrap(net, " in printed


def test_every_example_is_run_here() -> None:
    here = Path(__file__).read_text()
    names = [path.name for path in EXAMPLES.iterdir() if path.is_file()]
    assert names
    assert all(f'"{name}"' in here for name in names)
