"""`image2video rf`: the networks that it compares, what it writes and prints, and what it refuses."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from image2video import VideoWrap
from image2video.cli import main
from image2video.cli import rf as command
from image2video.cli.commands.train import FieldOptions
from image2video.cli.rf_job import AVERAGED, BARE, RfOptions, beside, build_networks, image_size, read_images
from image2video.cli.train_fields import wanted
from image2video.data import load_data
from image2video.errors import InputError, MissingError, StateError
from image2video.integrations.timm_backbones import build
from image2video.receptive_field import Unit, effective
from image2video.receptive_field.effective import effective_fields
from image2video.receptive_field.survey import default_layer, survey, survey_units
from image2video.wrap.builders import Builder

CPU = torch.device("cpu")
MODEL = ("--model", "cifar_resnet8", "--model-kwargs", '{"num_classes": 3, "in_chans": 1}')
CLIP = (
    "--genotype",
    "translate_x(0.1) > rotate(20)",
    "--frames",
    "3",
    "--size",
    "16",
    "--layer",
    "layer3",
    "--schedule",
    "from_zero",
)


def options(**values):
    fresh = {"model": "cifar_resnet8", "model_kwargs": {"num_classes": 3}, "frames": 3, "size": 16, "count": 2}
    fresh["schedule"] = "from_zero"
    return RfOptions(**(fresh | values))


@pytest.fixture
def silent_figures(monkeypatch):
    """Figures take seconds, and have tests of their own."""
    monkeypatch.setattr(command, "save_figure", lambda figure, path: [])
    monkeypatch.setattr(command, "write_field_page", lambda path, report, fields, film: path.write_text(report.title))


def test_a_run_writes_everything_and_prints_the_table(tmp_path, capsys):
    out = tmp_path / "rf"
    argv = ["rf", *MODEL, *CLIP, "--fusion", "tsm", "--count", "3", "--out", str(out)]
    assert main(argv) == 0
    printed = capsys.readouterr()
    first = [line.split()[0] for line in printed.out.splitlines() if line.strip()]
    assert first[:6] == ["layer3,", "network", "─" * len(first[2]), "bare", "no", "TSM"]
    assert "σ, px" in printed.out
    assert "cifar_resnet8 at 16×16 pixels, random weights, 3 images of white noise" in printed.out.replace("\n", " ")
    assert "3/3" in printed.err
    written = {"erf.png", "erf.svg", "fields.png", "fields.svg", "maps.npz", "rf.html", "rf.json", "run.json"}
    assert {path.name for path in out.iterdir()} == written
    record = json.loads((out / "rf.json").read_text())
    assert [(row["row"], row["network"]) for row in record["fields"]] == [
        (unit, name) for unit in ("layer3, frame 0", "layer3, averaged") for name in (BARE, AVERAGED, "TSM")
    ]
    assert {row["images"] for row in record["fields"]} == {3}
    assert record["T"] == 3
    run = json.loads((out / "run.json").read_text())
    assert run["state"] == "done"
    assert set(run["contents"]) == written - {"run.json"}
    with np.load(out / "maps.npz") as maps:
        assert len(maps.files) == 6
        assert all(maps[name].shape == (16, 16) for name in maps.files)
        assert np.array_equal(maps["layer3, frame 0/bare"], maps["layer3, frame 0/no fusion"])
    page = (out / "rf.html").read_text()
    assert page.count("<img") == 2
    assert "http" not in page.replace("http://www.w3.org", "")
    # The folder is a run's own now.
    assert main(argv) == 2
    assert "holds a run of 'rf'" in capsys.readouterr().err


def test_equal_options_give_equal_numbers(tmp_path, silent_figures, capsys):
    records = []
    for name in ("a", "b", "c"):
        seed = "1" if name == "c" else "0"
        argv = ["rf", *MODEL, *CLIP, "--fusion", "gsf", "--count", "2", "--seed", seed, "--out", str(tmp_path / name)]
        assert main(argv) == 0
        records.append(json.loads((tmp_path / name / "rf.json").read_text())["fields"])
    assert records[0] == records[1]
    assert records[0] != records[2]


def test_networks_share_their_weights_and_fusions_are_as_published():
    networks = build_networks(options(fusion="gsf"), 0, CPU)
    assert list(networks.models) == [BARE, AVERAGED, "GSF"]
    bare = networks.bare.state_dict()
    for name in (AVERAGED, "GSF"):
        model = networks.models[name]
        assert isinstance(model, VideoWrap)
        assert not model.residual
        assert all(torch.equal(value, bare[key]) for key, value in model.backbone.state_dict().items())
    assert networks.weights == "random"
    assert list(build_networks(options(fusion="none"), 0, CPU).models) == [BARE, AVERAGED]
    calibrated = networks.calibrated(torch.randn(2, 3, 16, 16), 0)
    mine, theirs = calibrated.bare.state_dict(), calibrated.models[AVERAGED].backbone.state_dict()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert not torch.equal(mine["bn1.running_mean"], bare["bn1.running_mean"])


def test_a_frame_at_step_zero_without_fusion_is_the_bare_network():
    networks = build_networks(options(fusion="none"), 0, CPU)
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    networks = networks.calibrated(images, 0)
    units = survey_units(networks.bare, networks.size, layer="layer3", frame=0)
    found = survey(networks.models, images, units, weights="random")
    assert found["layer3, frame 0"][AVERAGED] is found["layer3, frame 0"][BARE]
    measured = effective(networks.models[AVERAGED], images, Unit("layer3", frame=0), weights="random")
    torch.testing.assert_close(measured.map, found["layer3, frame 0"][BARE].map)
    other = survey(
        networks.models, images, survey_units(networks.bare, networks.size, layer="layer3", frame=1), weights="random"
    )
    moved = other["layer3, frame 1"]
    assert not torch.allclose(moved[AVERAGED].map, moved[BARE].map, rtol=0.1)


def test_the_default_frame_is_the_image_itself():
    assert build_networks(options(), 0, CPU).still_frame == 0
    assert build_networks(options(schedule="centred"), 0, CPU).still_frame == 1
    assert build_networks(options(schedule=None, frames=None), 0, CPU).still_frame == 1
    with pytest.raises(InputError, match="--frame 3 is not one of --frames 3: they count from 0"):
        build_networks(options(frame=3), 0, CPU)


def test_the_default_layer_is_the_last_whose_field_fits():
    bare = build("cifar_resnet18", num_classes=3)
    assert default_layer(bare, (3, 32, 32)) == "layer2"
    assert default_layer(bare, (3, 200, 200)) == "layer4"
    assert default_layer(bare, (3, 5, 5)) == "act1"
    assert list(survey_units(build("small_fcn"), (3, 48, 48))) == ["output, frame 0", "output, averaged"]
    assert survey_units(bare, (3, 32, 32), layer="layer1", frame=2) == {
        "layer1, frame 2": Unit("layer1", frame=2),
        "layer1, averaged": Unit("layer1"),
    }
    with pytest.raises(InputError, match="name a layer"):
        default_layer(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2)), (3, 4, 4))


def test_trained_weights_of_a_bare_network(tmp_path):
    torch.manual_seed(1)
    bare = build("cifar_resnet8", num_classes=3)
    path = tmp_path / "bare.safetensors"
    safetensors.torch.save_file(bare.state_dict(), path)
    networks = build_networks(options(weights=str(path), fusion="gsf"), 0, CPU)
    assert networks.weights == "trained (those of GSF random)"
    assert torch.equal(networks.bare.state_dict()["conv1.weight"], bare.conv1.weight)
    assert build_networks(options(weights=str(path), fusion="tsm"), 0, CPU).weights == "trained"
    wrapped = VideoWrap(copy.deepcopy(bare), "gsf", input_size=(3, 16, 16))
    safetensors.torch.save_file(wrapped.state_dict(), path)
    with pytest.raises(InputError, match="folder of its save_pretrained"):
        build_networks(options(weights=str(path)), 0, CPU)
    with pytest.raises(MissingError, match="no weights at nowhere"):
        build_networks(options(weights="nowhere"), 0, CPU)


def test_a_saved_wrapper_says_itself_how_it_is_wrapped(tmp_path):
    builder = Builder("timm:cifar_resnet8", {"num_classes": 3})
    model = VideoWrap(builder.build(), "gsm", genotype="rotate(5)", T=2, schedule="centred", input_size=(3, 16, 16))
    model.builder = builder
    model.save_pretrained(tmp_path / "saved")
    networks = build_networks(RfOptions(weights=str(tmp_path / "saved")), 0, CPU)
    assert networks.size == (3, 16, 16)  # which it was wrapped for; its family's is 32
    assert networks.name == "cifar_resnet8"
    assert build_networks(RfOptions(weights=str(tmp_path / "saved"), size=20), 0, CPU).size == (3, 20, 20)
    assert list(networks.models) == [BARE, AVERAGED, "GSM"]
    assert (str(networks.genotype), networks.clip.T, networks.clip.schedule) == ("rotate(5)", 2, "centred")
    averaged = networks.models[AVERAGED]
    assert isinstance(averaged, VideoWrap)
    assert (str(averaged.genotype), averaged.T, averaged.to_video.schedule) == ("rotate(5)", 2, "centred")
    assert networks.weights == "trained"
    with pytest.raises(InputError, match="leave out --genotype, --frames"):
        build_networks(RfOptions(weights=str(tmp_path / "saved"), genotype="identity", frames=3), 0, CPU)


def test_the_twin_without_fusion_makes_the_same_clip() -> None:
    clip = {"genotype": "translate_x(0.1) > invert(1)", "T": 2, "padding": "border", "mean": (0.5,), "std": (0.2,)}
    model = VideoWrap(build("cifar_resnet8", num_classes=3, in_chans=1), "tsm", **clip, input_size=(1, 16, 16))
    twin = beside(model, (1, 16, 16))[AVERAGED]
    assert isinstance(twin, VideoWrap)
    images = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(twin.to_video(images), model.to_video(images))


def test_images_come_from_a_folder_or_from_a_seed(tmp_path):
    bare = build("cifar_resnet8", num_classes=3)
    rng = np.random.default_rng(0)
    for index in range(3):
        Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(tmp_path / f"{index}.png")
    found = read_images(str(tmp_path), 2, (3, 16, 16), bare, 0)
    assert found.images.shape == (2, 3, 16, 16)
    assert found.mean == bare.pretrained_cfg["mean"]
    assert found.about == f"images (the first files of {tmp_path.name})"
    with pytest.raises(InputError, match="holds 3 image files, --count asks for 4"):
        read_images(str(tmp_path), 4, (3, 16, 16), bare, 0)
    with pytest.raises(InputError, match="this model takes 1×16×16"):
        read_images(str(tmp_path), 2, (1, 16, 16), bare, 0)
    with pytest.raises(MissingError, match="no folder nowhere"):
        read_images("nowhere", 2, (3, 16, 16), bare, 0)
    noise = read_images("random", 2, (1, 16, 20), bare, 5)
    assert noise.images.shape == (2, 1, 16, 20)
    assert (noise.about, noise.mean) == ("images of white noise", None)
    assert torch.equal(noise.images, read_images("random", 2, (1, 16, 20), bare, 5).images)


def test_the_size_is_the_models_own_or_what_is_asked_for():
    bare = build("cifar_resnet8", num_classes=3)
    assert image_size(bare, None) == (3, 32, 32)
    assert image_size(bare, 16) == (3, 16, 16)
    plain = torch.nn.Conv2d(3, 4, 3)
    assert image_size(plain, 16) == (3, 16, 16)
    with pytest.raises(InputError, match="give --size PIXELS"):
        image_size(plain, None)


def test_training_a_wrapped_network_shows_its_fields(tmp_path, capsys):
    train = ["train", "--data", "digits", "--train-images", "40", "--epochs", "1", "--frames", "2", "--fusion", "tsm"]
    out = tmp_path / "wrapped"
    assert main([*train, "--genotype", "rotate(20)", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "layer2, frame 1" in printed
    assert "no fusion" in printed
    with Image.open(out / "erf.png") as picture:
        assert picture.size[0] > 500
    assert "erf.png" in json.loads((out / "run.json").read_text())["contents"]
    for name, more in (("off", ["--genotype", "rotate(20)", "--fields", "false"]), ("bare", ["--genotype", "none"])):
        assert main([*train, *more, "--out", str(tmp_path / name)]) == 0
        assert "frame 0" not in capsys.readouterr().out
        assert not (tmp_path / name / "erf.png").exists()


def test_fields_after_training_are_drawn_where_they_are_cheap():
    small, large = load_data("digits", train_images=20), load_data("digits", train_images=20, image_size=80)
    assert [wanted(FieldOptions(), data) for data in (small, large)] == [True, False]
    assert wanted(FieldOptions(fields=True), large)
    assert not wanted(FieldOptions(fields=False), small)


def test_units_that_share_a_forward_have_the_fields_that_they_have_alone():
    networks = build_networks(options(fusion="gsf"), 0, CPU).calibrated(torch.randn(2, 3, 16, 16), 0)
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    units = [Unit("layer3", frame=1), Unit("layer2"), Unit(), Unit("layer2", frame=0)]
    found = effective_fields(networks.models["GSF"], images, units, weights="random", batch_size=2)
    for unit, field in zip(units, found, strict=True):
        alone = effective(networks.models["GSF"], images, unit, weights="random", batch_size=2)
        torch.testing.assert_close(field.map, alone.map, rtol=1e-5, atol=0)
        assert field.described == alone.described
        assert field.frame_shares == pytest.approx(alone.frame_shares, abs=1e-6)
    with pytest.raises(InputError, match="no unit was asked for"):
        effective_fields(networks.bare, images, [])


def test_nothing_after_the_unit_is_run():
    bare = build("cifar_resnet8", num_classes=3).eval()
    ran = []
    bare.layer3.register_forward_hook(lambda *_: ran.append("layer3"))
    bare.layer2.register_forward_hook(lambda *_: ran.append("layer2"))
    video = VideoWrap(bare, "tsm", genotype="rotate(20)", T=2, input_size=(3, 16, 16)).eval()
    ran.clear()
    images = torch.randn(2, 3, 16, 16)
    before = video(images)
    ran.clear()
    field = effective(video, images, Unit("layer2", frame=1), weights="random")
    assert ran == ["layer2", "layer3", "layer2"]  # the trace, then the measurement
    assert field.frame_shares is not None
    torch.testing.assert_close(video(images), before)
    with pytest.raises(StateError, match="outside of its wrapper"):
        bare(images)


def test_fields_of_a_clip_that_begins_inside_of_the_network(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "save_figure", lambda figure, path: [])
    out = tmp_path / "rf"
    argv = ["rf", *MODEL, *CLIP, "--clip-at", "layer3", "--fusion", "none", "--count", "2", "--out", str(out)]
    assert main(argv) == 0
    assert "beginning at layer3" in " ".join(capsys.readouterr().out.split())
    record = json.loads((out / "rf.json").read_text())
    assert record["clip_at"] == "layer3"
    rows = {(row["row"], row["network"]): row for row in record["fields"]}
    still, bare = rows["layer3, frame 0", AVERAGED], rows["layer3, frame 0", BARE]
    assert still["spread"] == bare["spread"]  # frame 0 is the map itself
    assert rows["layer3, averaged", BARE]["frame_shares"] is None
    assert min(rows["layer3, averaged", AVERAGED]["frame_shares"]) > 0.1
    page = " ".join((out / "rf.html").read_text().split())
    assert "The clip begins at layer3, in a map of 8×8 cells of which each sees 13×13 pixels" in page
    assert "The unit sees 7×7 of them. Its frames show it 256, 256, 256 pixels" in page
    assert not (out / "fields.png").exists()
    refused = [*argv[:-1], str(tmp_path / "other")]
    for changed, message in (
        (["--layer", "layer1", "--overwrite"], "lies before the place where the clip begins, 'layer3'"),
        (["--clip-at", "layer9"], "clip_at='layer9' must name a module that runs once"),
    ):
        assert main([*refused, *changed]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_saved_network_says_itself_where_its_clip_begins(tmp_path):
    model = VideoWrap(build("cifar_resnet8", num_classes=3), "tsm", genotype="flip_x", T=2, clip_at="layer3").eval()
    model.builder = Builder("timm:cifar_resnet8", {"num_classes": 3})
    model.save_pretrained(tmp_path / "saved")
    fresh = {"weights": str(tmp_path / "saved"), "size": 16, "count": 2}
    networks = build_networks(RfOptions(**fresh), 0, CPU)
    assert [getattr(one, "clip_at", "bare") for one in networks.models.values()] == ["bare", "layer3", "layer3"]
    assert networks.place == "layer3"
    assert networks.clip_text.endswith("beginning at layer3")
    with pytest.raises(InputError, match="leave out --clip-at"):
        build_networks(RfOptions(**fresh, clip_at="layer3"), 0, CPU)
