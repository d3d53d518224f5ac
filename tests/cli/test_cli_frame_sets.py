"""`--genotype "identity | flip_x"`: trained, evaluated, followed, drawn, measured."""

import json

import numpy as np
import pytest
import torch
from jsonargparse import Namespace
from PIL import Image

from image2video import FrameSet, VideoWrap
from image2video.cli import main
from image2video.cli.follow import follow_run
from image2video.cli.rf_job import AVERAGED, BARE, RfOptions, beside, build_networks

SET = "identity | flip_x | rotate(10)"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rng = np.random.default_rng(7)
    images = rng.integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(24) % 3
    path = tmp_path_factory.mktemp("data") / "three.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    return f"npz:{path}"


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    argv = ["train", "--data", data, "--epochs", "1", "--device", "cpu", "--batch-size", "12", "--holdout", "0"]
    assert main([*argv, "--genotype", SET, "--fusion", "tsm", "--fields", "false", "--out", str(out)]) == 0
    return out


def followed(trained, **given):
    options = {"weights": str(trained), "genotype": None, "frames": None, "schedule": None, "padding": None} | given
    return follow_run(Namespace(**options, given=list(given)))


def test_a_run_with_a_set_records_it_and_evaluates_to_itself(trained, capsys):
    network = json.loads((trained / "run.json").read_text())["network"]
    assert (network["genotype"], network["T"], network["schedule"]) == (SET, 3, "from_zero")
    capsys.readouterr()
    for part in ("", "pretrained"):
        assert main(["evaluate", "--json", "--device", "cpu", "--weights", str(trained / part)]) == 0
        printed = capsys.readouterr()
        assert json.loads(printed.out)["loss"] == pytest.approx(
            json.loads((trained / "result.json").read_text())["test_best"]["loss"], rel=1e-4
        )
        assert "other than" not in printed.err
    assert VideoWrap.from_pretrained(trained / "pretrained").genotype == FrameSet.parse(SET)


def test_another_clip_takes_neither_frames_nor_schedule_from_a_set(trained, tmp_path):
    same, _, notes = followed(trained)
    assert (same.genotype, same.frames, same.schedule) == (SET, 3, "from_zero")
    assert f'--genotype "{SET}"' in notes[0]
    other, _, notes = followed(trained, genotype="rotate(5)")
    assert (other.frames, other.schedule, other.padding) == (None, None, "reflection")
    assert f'--genotype "{SET}" there, rotate(5) here' in notes[-1]
    path = tmp_path / "set.json"
    FrameSet.parse(SET).save(path)
    file, _, notes = followed(trained, genotype=str(path))  # the same set
    assert (file.frames, file.schedule) == (3, "from_zero")
    assert "other than" not in " ".join(notes)
    fewer, _, _ = followed(trained, frames=2)
    assert (fewer.genotype, fewer.frames) == (SET, 2)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train", "--genotype", SET, "--frames", "4"], "the frame set has 3 frames"),
        (["train", "--genotype", SET, "--schedule", "centred"], "no schedule but 'from_zero'"),
        (["show", "--image", "{image}", "--genotype", SET, "--schedule", "mirror"], "no schedule but 'from_zero'"),
        (["rf", "--genotype", SET, "--frames", "4"], "the frame set has 3 frames"),
        (["rf", "--genotype", SET, "--frame", "3"], "--frame 3 is not one of --frames 3"),
    ],
)
def test_what_a_set_cannot_have_is_one_line(argv, message, data, tmp_path, capsys):
    Image.new("RGB", (8, 6)).save(tmp_path / "x.png")
    argv = [part.format(image=tmp_path / "x.png") for part in argv]
    more = ["--data", data, "--device", "cpu"] if argv[0] == "train" else []
    more += ["--model", "cifar_resnet8", "--size", "16"] if argv[0] == "rf" else []
    assert main([*argv, *more, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_show_draws_a_set(tmp_path, capsys):
    Image.linear_gradient("L").resize((32, 24)).save(tmp_path / "x.png")
    out = tmp_path / "clip.gif"
    assert main(["show", "--image", str(tmp_path / "x.png"), "--genotype", SET, "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    with Image.open(out) as film:
        assert film.n_frames == 3


def test_rf_measures_a_set():
    rf = RfOptions(model="cifar_resnet8", model_kwargs={"num_classes": 3}, size=16, genotype="flip_x | identity")
    networks = build_networks(rf, 0, CPU)
    assert (networks.clip.T, networks.clip.schedule, networks.clip.padding) == (2, "from_zero", "reflection")
    assert networks.clip_text == "flip_x | identity, T = 2"
    assert networks.still_frame == 1
    assert set(networks.models) == {BARE, AVERAGED, "GSF"}
    twins = beside(networks.models["GSF"], networks.size)
    assert str(twins[AVERAGED].genotype) == "flip_x | identity"
