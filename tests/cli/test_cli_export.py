"""`image2video export`: every door of weights, what is printed, and what is refused."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from image2video.cli import main
from image2video.cli.export import _first
from image2video.data import load_data
from image2video.export import check_export, export_formats
from image2video.wrap.builders import Builder
from image2video.wrap.video_wrap import VideoWrap

RNG = np.random.default_rng(7)
TRAIN = ["train", "--epochs", "1", "--device", "cpu", "--batch-size", "20", "--fields", "false", "--holdout", "0"]


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "three.npz"
    images, labels = RNG.integers(0, 256, (30, 8, 12, 3), dtype=np.uint8), np.arange(30) % 3
    np.savez(path, x_train=images, y_train=labels, x_test=images[::-1], y_test=labels[::-1])
    return f"npz:{path}"


@pytest.fixture(scope="module")
def run(arrays, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "wrapped"
    argv = ["--data", arrays, "--fusion", "tsm", "--genotype", "rotate(10)", "--out", str(out)]
    assert main([*TRAIN, *argv]) == 0
    return out


@pytest.fixture(scope="module")
def bare(arrays, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "bare"
    assert main([*TRAIN, "--data", arrays, "--genotype", "none", "--image-size", "16", "--out", str(out)]) == 0
    return out


def exported(tmp_path, *argv, name="model.ts", form="torchscript"):
    path = tmp_path / name
    assert main(["export", *map(str, argv), "--format", form, "--out", str(path)]) == 0
    return path, json.loads((tmp_path / f"{name}.check.json").read_text())


def test_a_run_is_exported_and_compared_on_its_own_images(run, arrays, tmp_path, capsys):
    path, record = exported(tmp_path, run)
    printed = capsys.readouterr()
    assert "torchscript: images (batch, 3, 8, 12) → output (batch, 3), float32\nlargest difference " in printed.out
    assert "as in the run" in printed.err
    assert record["compared_on"] == "npz:three.npz, test images"
    assert record["classes"] == ["0", "1", "2"]
    assert (record["clip"]["text"], record["clip"]["T"]) == ("rotate(10)", 3)
    model = VideoWrap.from_pretrained(run / "pretrained").eval()
    batch = _first(load_data(arrays, seed=0, mean=record["mean"], std=record["std"], holdout=0).test, 7)
    (found,) = export_formats()["torchscript"].load(path)(batch)
    with torch.no_grad():
        torch.testing.assert_close(found, model(batch), atol=1e-5, rtol=1e-5)


def test_without_data_a_run_its_folder_and_its_weights_give_the_same_file(run, bare, tmp_path, capsys):
    records = [
        exported(tmp_path, run, "--data", "none", name="run.ts")[1],
        exported(tmp_path, run / "pretrained", "--data", "none", name="folder.ts")[1],
        exported(tmp_path, run / "best.safetensors", "--data", "none", name="weights.ts")[1],
    ]
    assert [one["compared_on"] for one in records] == ["random images"] * 3
    assert all(one["clip"] == records[0]["clip"] and one["mean"] == records[0]["mean"] for one in records)
    assert all(one["input"]["shape"] == ["batch", 3, 8, 12] for one in records)
    path, record = exported(tmp_path, bare, "--batch-size", "2", "--data", "none", name="bare.pt2", form="pt2")
    assert record["clip"] is None
    assert record["input"]["shape"] == [2, 3, 16, 16]
    assert check_export(path).largest.relative < 1e-5
    # Weights of no known run: their classes are counted, their size is asked for.
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((bare / "best.safetensors").read_bytes())
    where = ["--model", "cifar_resnet8", "--genotype", "none"]
    capsys.readouterr()
    assert main(["export", str(alone), *where]) == 2
    assert "size of the network's images is not known; give --image-size N, or --data" in capsys.readouterr().err
    _, record = exported(tmp_path, alone, *where, "--image-size", "20", name="alone.ts")
    assert record["outputs"][0]["shape"] == ["batch", 3]
    assert record["classes"] == ["0", "1", "2"]


def test_what_is_refused_leaves_no_file(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for argv, message in (
        ([], "without RUN or --pretrained the network is random"),
        (["missing"], "no run, folder or file of weights at missing; give one that is there"),
        (["missing", "--data", "npz:gone.npz"], "no run, folder or file of weights at missing"),
        ([str(run), "--format", "onxx"], "did you mean 'onnx'?"),
        ([str(run), "--out", "model.onnx"], "a file of format pt2 must end with .pt2, got 'model.onnx'"),
        ([str(run), "--calibration-images", "0"], "--calibration-images must be at least 1, got 0"),
        ([str(run), "--opset", "18"], "opset=18: no effect on format pt2"),
        ([str(run), "--data", "npz:gone.npz"], "or give --data none to compare on random images"),
        ([str(run), "--format", "torchscript", "--dtype", "bf16", "--tolerance", "1e-9"], "differs from the model by"),
    ):
        assert main(["export", *argv]) == 2
        assert message in " ".join(capsys.readouterr().err.split()), argv
    assert not [*tmp_path.iterdir()]
    exported(tmp_path, run, name="image2video-export.ts")
    capsys.readouterr()
    assert main(["export", str(run), "--format", "torchscript"]) == 2
    assert "image2video-export.ts exists; choose another name, or replace it" in capsys.readouterr().err
    assert main(["export", str(run), "--format", "torchscript", "--overwrite"]) == 0


def test_a_segmentor_gives_maps(tmp_path):
    builder = Builder("timm:small_fcn", {"num_classes": 5, "in_chans": 3})
    model = VideoWrap(builder.build(), "none", genotype="scale(1.1)", input_size=(3, 16, 24))
    model.builder = builder
    model.save_pretrained(tmp_path / "saved")
    _, record = exported(tmp_path, tmp_path / "saved")
    assert record["input"]["shape"] == ["batch", 3, 16, 24]
    assert record["outputs"] == [{"name": "output", "shape": ["batch", 5, 8, 12], "dtype": "float32"}]


def test_image_files_bring_their_resizing(tmp_path):
    for name in ("a", "b"):
        for part in ("train", "val"):
            (tmp_path / "set" / part / name).mkdir(parents=True)
            for index in range(3):
                pixels = RNG.integers(0, 256, (20, 28, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "set" / part / name / f"{index}.png")
    out = tmp_path / "run"
    argv = ["--data", f"folder:{tmp_path / 'set'}", "--image-size", "16", "--workers", "0", "--fusion", "none"]
    assert main([*TRAIN, *argv, "--out", str(out)]) == 0
    _, record = exported(tmp_path, out, "--workers", "0")
    assert record["classes"] == ["a", "b"]
    assert record["resizing"]["crop_fraction"] == 0.875
    assert record["compared_on"] == "folder:set, test images"
