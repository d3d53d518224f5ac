"""What a run records of its network, and what later commands read of it."""

import json

import pytest
import yaml

from image2video import VideoWrap
from image2video.clip.genotype import Genotype
from image2video.clip.random_clips import RandomClips
from image2video.data import load_data
from image2video.errors import InputError
from image2video.integrations.timm_backbones import build
from image2video.runs.folders import OutputDirectory
from image2video.search import get_space
from image2video.training import TrainConfig, train
from image2video.training.trained import TrainedRun, network_record


def wrapped(**options):
    how = {"T": 3, "genotype": "rotate(7.25) > translate_x(-0.0125)", "padding": "reflection", "residual": False}
    return VideoWrap(build("cifar_resnet8", in_chans=1), "tsm", input_size=(1, 8, 8), **{**how, **options})


def test_a_run_from_python_records_its_network_images_and_classes(tmp_path):
    data = load_data("digits", train_images=20, image_size=8, mean=(0.25,), std=(0.5,))
    model = wrapped(schedule="centred", interpolation="bicubic", aggregate="mean_prob")
    train(model, data, TrainConfig(epochs=1, device="cpu", batch_size=10), out=tmp_path)
    for weights in (tmp_path, tmp_path / "best.safetensors", str(tmp_path / "last.safetensors")):
        run = TrainedRun.of(weights)
        assert run.folder == tmp_path
        assert run.classes == tuple("0123456789")
        assert run.channels == 1
        assert Genotype.parse(run.network["genotype"]) == model.genotype
        assert run.network == network_record(model)
    kept = {"T": 3, "schedule": "centred", "padding": "reflection", "interpolation": "bicubic"}
    kept |= {"residual": False, "aggregate": "mean_prob"}
    assert kept.items() <= run.network.items()
    assert run.network["fusion"]["name"] == "tsm"
    assert run.network["sites"] == [site.name for site in model.plan.sites]
    assert TrainedRun.of(tmp_path / "unknown.safetensors") is None
    assert load_data("digits", model=tmp_path).describe()["input_size"] == [1, 8, 8]


def test_bare_networks_and_drawn_frames_are_told_apart():
    assert network_record(build("cifar_resnet8")) == {"genotype": None}
    assert network_record(wrapped())["drawn"] is False
    source = RandomClips(get_space("affine5"), T=2)
    drawn = VideoWrap(build("cifar_resnet8", in_chans=1), "none", frames=source, input_size=(1, 8, 8))
    assert network_record(drawn)["drawn"] is True


def older_run(folder, options):
    run = OutputDirectory(folder, "train")
    run.note(dataset={"input_size": [1, 8, 8], "mean": [0.5], "std": [0.5]})
    (run / "best.safetensors").write_bytes(b"")
    (folder / "config.yaml").write_text(options if isinstance(options, str) else yaml.safe_dump(options))
    return run


def test_runs_of_before_are_read_by_what_they_have(tmp_path):
    older_run(tmp_path / "bare", {"genotype": "none", "model": "cifar_resnet8"})
    run = TrainedRun.of(tmp_path / "bare")
    assert (run.network, run.classes, run.options["model"]) == ({"genotype": None}, None, "cifar_resnet8")
    folder = older_run(tmp_path / "wrapped", {"genotype": "elsewhere.json"})
    assert TrainedRun.of(tmp_path / "wrapped").network == {}
    model = wrapped()
    model.save_pretrained(folder / "pretrained")
    for weights in (tmp_path / "wrapped", tmp_path / "wrapped" / "pretrained"):
        network = TrainedRun.of(weights).network
        assert {key: value for key, value in network.items() if key != "drawn"} == {
            key: value for key, value in network_record(model).items() if key != "drawn"
        }


@pytest.mark.parametrize("text", ["a: [", "- 1", "\tb: 1", "x: !!timestamp 2026-99-99"])
def test_a_broken_record_is_named(tmp_path, text):
    older_run(tmp_path / "run", text)
    with pytest.raises(InputError, match=r"config\.yaml(, line [12]| must hold options by name)"):
        TrainedRun.of(tmp_path / "run")


def test_a_search_is_no_training_run(tmp_path):
    run = OutputDirectory(tmp_path / "search", "search")
    (run / "genotype.json").write_text(json.dumps({}))
    assert TrainedRun.of(tmp_path / "search") is None
