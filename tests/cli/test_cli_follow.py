"""Later commands on a run's weights treat them as the run did, and say what differs."""

import json
import warnings
from dataclasses import dataclass, replace

import numpy as np
import pytest
import timm
import torch
import yaml
from jsonargparse import Namespace
from PIL import Image
from safetensors.torch import load_file, save_file

from image2video import VideoWrap
from image2video.cli import main, rf
from image2video.cli.follow import follow_run
from image2video.cli.heads import published_head
from image2video.cli.options import BackboneOptions, WrapOptions
from image2video.clip.genotype import Genotype
from image2video.errors import InputError
from image2video.fusion import GSFConfig
from image2video.runs.folders import OutputDirectory

RNG = np.random.default_rng(7)
CPU = ["--device", "cpu", "--batch-size", "20"]


@dataclass(frozen=True)
class Data:
    """What a head knows of data."""

    short_name: str
    num_classes: int
    classes: tuple[str, ...]


def write_arrays(path, classes=3, count=30, **changes):
    images = RNG.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(count) % classes
    images[np.arange(count), :, labels % 8] = 255  # something to learn
    arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels, **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return f"npz:{path}"


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    return write_arrays(tmp_path_factory.mktemp("data") / "three.npz")


@pytest.fixture(scope="module")
def bare(arrays, tmp_path_factory):
    """A bare run whose every recorded option is other than the default."""
    out = tmp_path_factory.mktemp("bare") / "run"
    argv = ["train", "--data", arrays, "--genotype", "none", "--epochs", "1", *CPU, "--image-size", "12"]
    argv += ["--model", "cifar_resnet14", "--model-kwargs", '{"stem_channels": 8}', "--mean", "[0.3,0.4,0.5]"]
    argv += ["--std", "[0.2,0.2,0.3]", "--holdout", "0.2", "--seed", "4", "--resize", "nearest"]
    assert main([*argv, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def wrapped(arrays, tmp_path_factory):
    out = tmp_path_factory.mktemp("wrapped") / "run"
    argv = ["train", "--data", arrays, "--epochs", "1", *CPU, "--holdout", "0", "--fusion", "tsm", "--frames", "3"]
    argv += ["--genotype", "translate_x(0.25) > rotate(40)", "--schedule", "centred", "--padding", "reflection"]
    argv += ["--interpolation", "nearest", "--residual", "false", "--aggregate", "mean_prob", "--mean", "[0.9,0.9,0.1]"]
    assert main([*argv, "--std", "[0.1,0.1,0.1]", "--out", str(out), "--fields", "false"]) == 0
    return out


def evaluated(capsys, *argv):
    capsys.readouterr()
    assert main(["evaluate", "--json", "--device", "cpu", *argv]) == 0
    printed = capsys.readouterr()
    return json.loads(printed.out), printed.err


def result_of(run):
    return json.loads((run / "result.json").read_text())["test_best"]


@pytest.mark.parametrize("part", ["", "best.safetensors"])
def test_the_weights_alone_evaluate_to_what_the_run_itself_found(bare, capsys, part):
    found, said = evaluated(capsys, "--weights", str(bare / part))
    assert found["loss"] == pytest.approx(result_of(bare)["loss"], rel=1e-5)
    assert found["top1"] == result_of(bare)["top1"]
    assert found["images"]["input_size"] == [3, 12, 12]
    assert found["images"]["mean"] == [0.3, 0.4, 0.5]
    assert found["images"]["resizing"]["interpolation"] == "nearest"
    for text in (
        "--model cifar_resnet14",
        "--genotype none",
        "--seed 4",
        "--holdout 0.2",
        "images: 12×12 px, mean 0.3",
    ):
        assert text in said
    assert said.count("images:") == 1
    assert "other than" not in said


@pytest.mark.parametrize("part", ["", "best.safetensors", "pretrained"])
def test_a_wrapped_run_keeps_its_clip_its_fusion_and_its_residual(wrapped, capsys, part):
    found, _ = evaluated(capsys, "--weights", str(wrapped / part))
    assert found["loss"] == pytest.approx(result_of(wrapped)["loss"], rel=1e-4)
    assert found["images"]["mean"] == [0.9, 0.9, 0.1]


def test_what_differs_is_said_with_both_values(wrapped, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        argv = [
            "--weights",
            str(wrapped),
            "--frames",
            "2",
            "--padding",
            "zeros",
            "--image-size",
            "10",
            "--fusion",
            "tsm",
        ]
        found, said = evaluated(capsys, *argv, "--mean", "[0.9,0.9,0.1]")
    assert f"other than in the run {wrapped}: --frames 3 there, 2 here, --padding reflection there, zeros here" in said
    assert f"warning: these images are made ready otherwise than those of the run {wrapped}" in said
    assert "image_size 8 there, 10 here" in said
    assert "mean 0.9" not in said.split("warning:")[1].splitlines()[0]
    assert found["images"]["input_size"] == [3, 10, 10]
    assert "--fusion" not in said  # as in the run
    _, said = evaluated(capsys, "--weights", str(wrapped / "pretrained"), "--frames", "2")
    assert f"other than in the run {wrapped}: --frames 3 there, 2 here" in said


def test_held_out_images_are_those_of_the_run(bare, capsys):
    history = json.loads((bare / "history.json").read_text())
    found, _ = evaluated(capsys, "--weights", str(bare), "--part", "holdout")
    assert found["n"] == 6
    assert found["loss"] == pytest.approx(history[-1]["holdout_loss"], rel=1e-5)


def test_an_evaluation_reads_no_more_than_its_part(bare, arrays, tmp_path, capsys):
    with np.load(arrays.removeprefix("npz:")) as file:
        keep = file["y_test"] < 2  # not the last class, which the run knows
        spec = write_arrays(
            tmp_path / "three.npz", x_train=None, y_train=None, x_test=file["x_test"][keep], y_test=file["y_test"][keep]
        )
    found, _ = evaluated(capsys, "--weights", str(bare), "--data", spec)
    assert found["n"] == 20
    assert main(["evaluate", "--weights", str(bare), "--data", spec, "--part", "train", "--device", "cpu"]) == 2
    assert "lacks x_train" in capsys.readouterr().err


def test_fine_tuning_and_searching_begin_as_the_run_did(bare, tmp_path, capsys):
    out = tmp_path / "tuned"
    argv = ["--weights", str(bare), *CPU, "--fusion", "tsm", "--frames", "2", "--fields", "false"]
    assert main(["train", *argv, "--genotype", "translate_x(0.1)", "--epochs", "1", "--out", str(out)]) == 0
    said = capsys.readouterr().err
    assert f"other than in the run {bare}: --genotype none there, translate_x(0.1) here" in said
    then, now = (json.loads((run / "run.json").read_text()) for run in (bare, out))
    assert then["dataset"] == now["dataset"]
    assert yaml.safe_load((out / "config.yaml").read_text())["model"] == "cifar_resnet14"
    assert load_file(out / "best.safetensors")["backbone.conv1.weight"].shape == (8, 3, 3, 3)

    argv = [
        "search",
        "--weights",
        str(bare),
        *CPU,
        "--selection",
        "fixed_weights",
        "--candidates",
        "2",
        "--frames",
        "2",
    ]
    assert main([*argv, "--out", str(tmp_path / "found"), "--padding", "reflection"]) == 0
    said = capsys.readouterr().err
    assert "images: 12×12 px, mean 0.3 0.4 0.5" in said
    saved = yaml.safe_load((tmp_path / "found" / "config.yaml").read_text())
    assert (saved["seed"], saved["holdout"], saved["model"]) == (4, 0.2, "cifar_resnet14")
    provenance = json.loads((tmp_path / "found" / "genotype.json").read_text())["provenance"]
    assert (provenance["padding"], provenance["interpolation"]) == ("reflection", "bilinear")


def test_the_clip_of_a_genotypes_file_has_its_padding_too(bare, tmp_path, capsys):
    found = {"T": 2, "schedule": "centred", "padding": "border", "interpolation": "nearest"}
    Genotype.parse("rotate(30)").with_provenance(found).save(tmp_path / "g.json")
    argv = ["train", "--weights", str(bare), *CPU, "--genotype", str(tmp_path / "g.json"), "--fusion", "tsm"]
    assert main([*argv, "--epochs", "1", "--fields", "false", "--out", str(tmp_path / "run")]) == 0
    network = json.loads((tmp_path / "run" / "run.json").read_text())["network"]
    assert found.items() <= network.items()


def published(path, classes=1000, wrap=False):
    model = timm.create_model("test_resnet", num_classes=classes)
    state = (VideoWrap(model, "tsm", T=2) if wrap else model).state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    return ["--model", "test_resnet", "--weights", str(path), "--genotype", "none"]


def write_images(root, parts=("val",), classes=("ant", "bee", "cow")):
    for part in parts:
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for index in range(2):
                pixels = RNG.integers(0, 256, (30, 44, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{index}.png")
    return f"folder:{root}"


def test_weights_of_no_known_run_are_read_as_the_published_ones(tmp_path, capsys):
    spec, argv = write_images(tmp_path / "images"), published(tmp_path / "w.safetensors", classes=3)
    argv += ["--batch-size", "1"]
    found, said = evaluated(capsys, *argv, "--data", spec, "--workers", "0")
    assert found["images"] == {
        "input_size": [3, 160, 160],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "resizing": {"interpolation": "bilinear", "crop_fraction": 0.95, "crop_mode": "center"},
    }
    assert "(published config of test_resnet.r160_in1k, since no run of the weights is known)" in said
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        _, said = evaluated(
            capsys, *argv, "--data", spec, "--workers", "0", "--mean", "[0.4,0.4,0.4]", "--image-size", "64"
        )
    assert "no run of the weights is known (mean 0.5 0.5 0.5 there, 0.4 0.4 0.4 here)" in said
    assert "64×64 px, mean 0.4 0.4 0.4" in said


def test_a_head_of_other_classes_is_left_out_in_training_and_refused_where_it_is_needed(arrays, tmp_path, capsys):
    argv = [*published(tmp_path / "w.safetensors"), "--data", arrays, "--device", "cpu"]
    train = ["train", *argv, "--epochs", "1", "--batch-size", "20", "--out", str(tmp_path / "run")]
    assert main([*train, "--head", "keep"]) == 2
    assert "--head keep: " in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main(train) == 0
    said = capsys.readouterr().err
    assert "w.safetensors is left out and starts fresh: it tells 1000 classes apart, npz:three.npz has 3" in said
    assert said.count("left out") == 1
    assert main(["evaluate", *argv]) == 2
    assert "tells 1000 classes apart, npz:three.npz has 3, and a fresh classifier would guess; give --classes 1000" in (
        capsys.readouterr().err
    )
    assert main(["evaluate", *argv, "--head", "drop"]) == 2
    assert "an evaluation needs the classifier" in capsys.readouterr().err
    assert evaluated(capsys, *argv, "--classes", "1000")[0]["n"] == 30
    ranking = ["search", *argv[:4], "--data", arrays, "--selection", "fixed_weights", "--out", str(tmp_path / "found")]
    assert main(ranking) == 2
    assert "a fresh classifier would guess" in capsys.readouterr().err


def test_the_classes_of_a_folder_are_found_among_the_networks_outputs(tmp_path, capsys):
    argv = published(tmp_path / "w.safetensors", classes=4)
    spec = write_images(tmp_path / "images", classes=("bee", "cow"))
    (tmp_path / "names.txt").write_text("ant\nbee\n\ncow\ndog\n")
    argv += ["--data", spec, "--workers", "0", "--image-size", "32"]
    found, _ = evaluated(capsys, *argv, "--classes", str(tmp_path / "names.txt"))
    assert found["n"] == 4
    (tmp_path / "images" / "val" / "eel").mkdir()
    for name, text in (("names.txt", "holds no image"), ("nowhere.txt", "must be a text file of class names")):
        assert main(["evaluate", *argv, "--classes", str(tmp_path / name)]) == 2
        assert text in capsys.readouterr().err


def test_the_heads_of_wrapped_and_saved_models_too(wrapped, tmp_path, capsys):
    four = write_arrays(tmp_path / "four.npz", classes=4, count=24)
    for index, weights in enumerate((wrapped / "best.safetensors", wrapped / "pretrained")):
        argv = ["--weights", str(weights), "--data", four, "--device", "cpu"]
        out = tmp_path / f"run{index}"
        assert (
            main(["train", *argv, "--epochs", "1", "--batch-size", "12", "--fields", "false", "--out", str(out)]) == 0
        )
        assert "is left out and starts fresh: it tells 3 classes apart, npz:four.npz has 4" in capsys.readouterr().err
        assert VideoWrap.from_pretrained(out / "pretrained").num_classes == 4
        assert main(["evaluate", *argv]) == 2
        assert "a fresh classifier would guess" in capsys.readouterr().err


def test_fields_are_measured_on_images_as_the_run_had_them(bare, wrapped, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(rf, "save_figure", lambda figure, path: [])  # figures take seconds
    monkeypatch.setattr(rf, "write_field_page", lambda path, report, fields, film: path.write_text(report.title))
    folder = tmp_path / "images"
    write_images(folder)
    argv = ["rf", "--images", str(folder), "--count", "2", "--fusion", "tsm", "--frames", "2", "--device", "cpu"]
    assert main([*argv, "--weights", str(bare), "--out", str(tmp_path / "a")]) == 0
    said = capsys.readouterr().err
    assert "images: 12×12 px, mean 0.3 0.4 0.5, std 0.2 0.2 0.3, nearest resize" in said
    assert "--model cifar_resnet14" in said
    record = json.loads((tmp_path / "a" / "rf.json").read_text())
    assert record["settings"]["model"] == "cifar_resnet14"
    argv = ["rf", "--images", str(folder), "--count", "2", "--device", "cpu", "--weights", str(wrapped)]
    assert main([*argv, "--out", str(tmp_path / "b")]) == 0
    assert "mean 0.9 0.9 0.1" in capsys.readouterr().err
    assert json.loads((tmp_path / "b" / "rf.json").read_text())["T"] == 3


def test_a_run_without_weights_yet_is_named(bare, tmp_path, capsys):
    (tmp_path / "run.json").write_text((bare / "run.json").read_text())
    assert main(["evaluate", "--weights", str(tmp_path)]) == 2
    assert "has no best.safetensors yet" in capsys.readouterr().err


def test_published_weights_keep_their_classifier_where_it_fits():
    model = timm.create_model("test_resnet", num_classes=3)  # as timm builds it for three classes, pretrained
    data, thousand = Data("npz:three.npz", 3, ("a", "b", "c")), Data("folder:imagenet", 1000, ("n01440764",) * 1000)
    fresh = BackboneOptions(model="test_resnet", pretrained=True)
    assert "the published weights of test_resnet is left out" in published_head(model, fresh, data)
    assert published_head(model, fresh, thousand) is None
    for options in (replace(fresh, head="keep"), fresh):
        with pytest.raises(InputError, match=r"tells 1000 classes apart, npz:three\.npz has 3"):
            published_head(model, options, data, needed=options is fresh)
    own = timm.create_model("test_resnet")
    before = own.fc.weight.clone()
    assert "as asked" in published_head(own, replace(fresh, head="drop"), thousand)
    assert not torch.equal(own.fc.weight, before)
    with pytest.raises(InputError, match="--head drop: no effect without trained weights"):
        BackboneOptions(head="drop")


def made_run(folder, options, network):
    """A run's folder, as it stands on the disk."""
    run = OutputDirectory(folder, "train")
    dataset = {"input_size": [1, 8, 8], "mean": [0.5], "std": [0.5]}
    run.note(dataset=dataset, classes=list("0123456789"), network=network)
    (run / "best.safetensors").write_bytes(b"weights")
    (folder / "config.yaml").write_text(yaml.safe_dump(options))
    return Namespace(weights=str(folder), data="digits", given=(), **vars(WrapOptions()))


WRAPPED = {
    "genotype": "rotate(5)",
    "T": 2,
    "residual": True,
    "sites": ["layer1.0"],
    "aggregate": "auto",
    "drawn": False,
}


def test_what_no_option_can_say_is_refused_and_named(tmp_path):
    gsf, other = GSFConfig().to_dict(), GSFConfig(ratio=0.5).to_dict()
    for number, (network, message) in enumerate(
        (
            ({"fusion": other}, "which no name of --fusion stands for; load it in Python"),
            ({"fusion": gsf, "aggregate": None}, "aggregates by a function of its own; give --aggregate"),
            ({"fusion": gsf, "drawn": True}, "drew its frames from a source of its own; give --frame-source"),
        )
    ):
        options = made_run(tmp_path / str(number), {}, WRAPPED | network)
        with pytest.raises(InputError, match=message):
            follow_run(options)
    options = made_run(tmp_path / "typo", {"data": "digits", "holdout": "much"}, {"genotype": None})
    with pytest.raises(InputError, match=r"config\.yaml has holdout: 'much', which is no value of --holdout"):
        follow_run(options)


def test_the_sites_and_the_source_of_a_run_are_followed(tmp_path):
    options = made_run(tmp_path / "sites", {}, WRAPPED | {"fusion": GSFConfig().to_dict()})
    found, run, notes = follow_run(options)
    assert (found.sites, found.frames, found.genotype, found.weights) == (
        r"layer1\.0",
        2,
        "rotate(5)",
        str(tmp_path / "sites" / "best.safetensors"),
    )
    assert "--sites" in notes[0]
    assert run.folder == tmp_path / "sites"
    assert options.sites is None  # the caller's own options are left alone
    drawn = WRAPPED | {"fusion": GSFConfig().to_dict(), "drawn": True}
    options = made_run(tmp_path / "drawn", {"frame_source": "clips:affine5", "data": "npz:x.npz", "seed": 9}, drawn)
    found, _, _ = follow_run(options)
    assert (found.frame_source, found.genotype, found.data) == ("clips:affine5", None, "npz:x.npz")
    other = made_run(tmp_path / "other", {"data": "npz:x.npz", "holdout": 0.3, "sites": "layer2"}, {"genotype": None})
    other.given, other.holdout = ("data",), 0.1
    found, _, _ = follow_run(other)
    assert (found.holdout, found.genotype, found.sites) == (0.1, "none", None)  # another division, of other data
