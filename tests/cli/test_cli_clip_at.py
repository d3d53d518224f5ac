"""`--clip-at`: networks whose clips begin inside of them are trained, recorded, resumed and evaluated."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml

from image2video.cli import main
from image2video.clip.genotype import Genotype
from image2video.training.trained import TrainedRun

CPU = ["--device", "cpu", "--batch-size", "20"]
PLACE = ["--genotype", "translate_x(0.25)", "--frames", "2", "--fusion", "tsm", "--clip-at", "layer2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    images = np.random.default_rng(7).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(30) % 3
    images[np.arange(30), :, labels] = 255
    path = tmp_path_factory.mktemp("data") / "three.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    return f"npz:{path}"


@pytest.fixture(scope="module")
def command(data: str) -> list[str]:
    return ["train", "--data", data, "--epochs", "1", "--holdout", "0", "--fields", "false", *CPU]


@pytest.fixture(scope="module")
def run(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("inside") / "run"
    assert main([*command, *PLACE, "--out", str(out)]) == 0
    return out


def evaluated(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[dict, str]:
    capsys.readouterr()
    assert main(["evaluate", "--json", "--device", "cpu", *argv]) == 0
    printed = capsys.readouterr()
    return json.loads(printed.out), printed.err


def test_the_place_is_recorded(run: Path) -> None:
    assert yaml.safe_load((run / "config.yaml").read_text())["clip_at"] == "layer2"
    assert json.loads((run / "run.json").read_text())["network"]["clip_at"] == "layer2"
    assert json.loads((run / "pretrained" / "config.json").read_text())["clip_at"] == "layer2"
    found = TrainedRun.of(run)
    assert found is not None
    assert found.network["clip_at"] == "layer2"


@pytest.mark.parametrize("part", ["", "best.safetensors", "pretrained"])
def test_the_weights_alone_evaluate_to_what_the_run_found(run: Path, part: str, capsys) -> None:
    found, said = evaluated(capsys, "--weights", str(run / part))
    assert found["loss"] == pytest.approx(json.loads((run / "result.json").read_text())["test_best"]["loss"], rel=1e-4)
    assert ("--clip-at layer2" in said) == (part != "pretrained")


def test_another_place_is_another_network_and_costs_otherwise(run: Path, capsys) -> None:
    inside, _ = evaluated(capsys, "--weights", str(run))
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        image, said = evaluated(capsys, "--weights", str(run), "--clip-at", "image")
    assert "other than in the run" in said
    assert "--clip-at layer2 there, image here" in said
    assert "warning: " in said
    assert "clip_at" in said.split("warning: ")[1]
    assert inside["cost"]["macs_per_image"] < image["cost"]["macs_per_image"]
    assert inside["loss"] != image["loss"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clip-at", "layer3"], "clip_at: 'layer2' then, 'layer3' now"),
        (["--clip-at", "image"], "clip_at: 'layer2' then, 'image' now"),
    ],
)
def test_a_run_does_not_go_on_at_another_place(
    command: list[str], run: Path, options: list[str], message: str, capsys
) -> None:
    before = (run / "checkpoint.pt").read_bytes()
    assert main([*command, *PLACE, *options, "--resume", "--out", str(run)]) == 2
    assert message in capsys.readouterr().err
    assert (run / "checkpoint.pt").read_bytes() == before
    assert main([*command, *PLACE, "--resume", "--out", str(run)]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clip-at", "layer9"], "clip_at='layer9' must name a module that runs once"),
        (["--clip-at", "layer2", "--genotype", "none"], "--clip-at layer2: no effect with --genotype none"),
        (["--clip-at", "layer2", "--frame-source", "clips:gentle"], "--clip-at layer2: no effect with --frame-source"),
        (["--clip-at", "layer2", "--frames", "1"], "has 2 frames or more, got T=1"),
        (["--clip-at", "layer2", "--genotype", "invert(0.5)"], "cannot change colours"),
    ],
)
def test_what_cannot_be_is_refused_before_the_folder(
    command: list[str], options: list[str], message: str, tmp_path: Path, capsys
) -> None:
    assert main([*command, *options, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_genotype_that_was_found_at_a_place_begins_there(command: list[str], tmp_path: Path, capsys) -> None:
    file = tmp_path / "found.json"
    Genotype.parse("flip_x").with_provenance({"T": 2, "schedule": "from_zero", "clip_at": "layer3"}).save(file)
    begin = [*command, "--fusion", "none", "--genotype", str(file)]
    assert main([*begin, "--out", str(tmp_path / "there")]) == 0
    assert f"the clip begins at layer3, as {file} was found" in capsys.readouterr().err
    assert json.loads((tmp_path / "there" / "run.json").read_text())["network"]["clip_at"] == "layer3"
    assert main([*begin, "--clip-at", "image", "--out", str(tmp_path / "image")]) == 0
    assert json.loads((tmp_path / "image" / "run.json").read_text())["network"]["clip_at"] is None
