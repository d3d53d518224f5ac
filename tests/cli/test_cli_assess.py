"""`image2video assess`: from a folder of images to a report, a model and a script."""

import json
import runpy
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from image2video import Builder, VideoWrap, register_builder
from image2video.cli.app import main
from image2video.integrations.timm_backbones import build
from image2video.wrap import builders


@pytest.fixture
def case(tmp_path):
    """A folder with one sub-folder per class and no train/ or val/, and weights for it."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("dark", "light", "striped")):
        (tmp_path / "my images" / name).mkdir(parents=True)
        for number in range(14):
            pixels = rng.integers(0, 90, (20, 24, 3)) + 80 * label
            if name == "striped":
                pixels[::2] = 0
            Image.fromarray(pixels.astype("uint8")).save(tmp_path / "my images" / name / f"{number}.png")
    torch.manual_seed(0)
    save_file(build("cifar_resnet8", num_classes=3, in_chans=3).state_dict(), tmp_path / "bare.safetensors")
    return tmp_path


def command(case, *more):
    asked = ["--model", "cifar_resnet8", "--weights", str(case / "bare.safetensors"), "--image-size", "16"]
    data = ["--data", f"folder:{case / 'my images'}", "--workers", "0", "--device", "cpu"]
    return ["assess", *asked, *data, "--candidates", "8", "--out", str(case / "out"), *more]


def test_from_a_folder_of_images_to_a_script_that_runs(case, capsys, monkeypatch):
    assert main(command(case)) == 0
    printed = capsys.readouterr().out
    out = case / "out"
    record = json.loads((out / "result.json").read_text())
    words = " ".join(printed.split())
    assert all(" ".join(sentence.split()) in words for sentence in record["sentences"])
    assert record["about"]["data"] == "folder:my images, test images"
    assert record["rows"][0]["choosing"]["images"] + record["rows"][0]["judging"]["images"] == 42
    assert "<h1>Does a clip help this model?</h1>" in (out / "report.html").read_text()
    model = VideoWrap.from_pretrained(out / "model")
    advised = record["choice"] if record["verdict"] in ("better", "likelihood") else 0
    assert record["rows"][advised]["finalist"]["T"] == model.T
    image = case / "my images" / "light" / "3.png"
    monkeypatch.setattr(sys, "argv", ["use_it.py", str(image)])
    runpy.run_path(str(out / "use_it.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert said.startswith(f"{image}: ")
    assert said.split(": ")[1].split(" (")[0] in ("dark", "light", "striped")


def test_another_assessment_is_not_overwritten(case, capsys):
    (case / "out").mkdir()
    (case / "out" / "notes.txt").write_text("mine")
    assert main(command(case)) == 2
    assert "choose another folder" in capsys.readouterr().err
    assert not (case / "out" / "result.json").exists()


def test_no_script_is_written_for_a_builder_of_this_process_alone(case, monkeypatch, capsys):
    monkeypatch.setattr(builders, "_REGISTERED", {})
    register_builder("lab", lambda name, **about: build("cifar_resnet8", **about))
    assert main(command(case, "--model", "lab:small", "--max-cost", "1")) == 0
    assert "use_it.py" not in capsys.readouterr().out
    assert not (case / "out" / "use_it.py").exists()
    assert (case / "out" / "model" / "config.json").exists()


@pytest.mark.parametrize(
    ("more", "match"),
    [
        (["--max-cost", "0.5"], "max_cost must be at least 1"),
        (["--candidates", "4"], "candidates must be at least 8, got 4"),
        (["--space", "poses"], "unknown search space 'poses'"),
        (["--head", "drop"], "an assessment needs the classifier"),
        (["--part", "train"], "--part must be one of test, holdout"),
        (["--weights", "nowhere.safetensors"], "no weights at nowhere"),
        (["--data", "digit_scenes", "--image-size", "24"], "has a class for every pixel"),
    ],
)
def test_what_cannot_be_assessed(case, capsys, more, match):
    assert main(command(case, *more)) == 2
    assert match in capsys.readouterr().err
    assert not (case / "out").exists()  # with --overwrite an earlier run would be gone


def test_a_wrapped_network_is_assessed_without_its_clip(case, capsys):
    bare = build("cifar_resnet8", num_classes=3)
    bare.load_state_dict(load_file(case / "bare.safetensors"))
    model = VideoWrap(bare, "none", genotype="flip_x", T=2, input_size=(3, 16, 16))
    model.builder = Builder("timm:cifar_resnet8", {"num_classes": 3})
    model.save_pretrained(case / "wrapped")
    assert (
        main(command(case, "--weights", str(case / "wrapped"), "--out", str(case / "folder"), "--max-cost", "1")) == 0
    )
    assert "assessed without its clip (flip_x, T = 2), which averages already" in capsys.readouterr().err
    # The folder's config says how its images are made ready.
    colours = ["--mean", "[0.4914,0.4822,0.4465]", "--std", "[0.247,0.2435,0.2616]"]
    assert main(command(case, *colours, "--max-cost", "1")) == 0
    alone, folder = (json.loads((case / name / "result.json").read_text())["rows"][0] for name in ("out", "folder"))
    assert folder["judging"] == alone["judging"]
    assert VideoWrap.from_pretrained(case / "folder" / "model").builder == model.builder


def test_a_fused_network_is_not_the_bare_one(case, capsys):
    model = VideoWrap(build("cifar_resnet8", num_classes=3), "tsm", input_size=(3, 16, 16))
    model.builder = Builder("timm:cifar_resnet8", {"num_classes": 3})
    model.save_pretrained(case / "wrapped")
    assert main(command(case, "--weights", str(case / "wrapped"))) == 2
    assert "was wrapped with a fusion" in capsys.readouterr().err


def test_a_network_of_a_function_is_named_in_the_record(case, monkeypatch, capsys):
    monkeypatch.setattr(builders, "_REGISTERED", {})
    (case / "own_nets.py").write_text(
        "from image2video.integrations.timm_backbones import build\n\n\n"
        "def small(num_classes):\n    return build('cifar_resnet8', num_classes=num_classes)\n"
    )
    monkeypatch.chdir(case)
    cheap = ["--max-cost", "1"]
    assert main(command(case, "--model", "own_nets.py:small", "--out", str(case / "own"), *cheap)) == 0
    assert json.loads((case / "own" / "result.json").read_text())["about"]["model"] == "own_nets.py:small"
    image = case / "my images" / "light" / "3.png"
    monkeypatch.setattr(builders, "_REGISTERED", {})
    monkeypatch.delitem(sys.modules, "own_nets")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["use_it.py", str(image)])
    capsys.readouterr()
    runpy.run_path(str(case / "own" / "use_it.py"), run_name="__main__")
    assert capsys.readouterr().out.startswith(f"{image}: ")


def test_a_folder_with_parts_is_its_val(case):
    data = case / "my images"
    (case / "parts").mkdir()
    data.rename(case / "parts" / "val")
    assert main(command(case, "--data", f"folder:{case / 'parts'}", "--max-cost", "1")) == 0
    assert json.loads((case / "out" / "result.json").read_text())["rows"][0]["judging"]["images"] == 14
