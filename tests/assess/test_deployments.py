"""One network in several places: what is advised there, and what else would have helped."""

import dataclasses
import json

import pytest
import torch
from digit_networks import network
from report_cases import result_record
from torch import nn

from image2video.assess import deployments
from image2video.assess.deployments import POSES, Pose, run_deployments
from image2video.assess.story import columns, opening, rows
from image2video.data import load_data
from image2video.data.memory import MemorySet
from image2video.errors import InputError
from image2video.experiments import DemoConfig
from image2video.report import ComparisonResult, report_html

TILTED = Pose("tilted", "tilted camera", "rotate(20)")


@pytest.fixture(scope="module")
def found():
    """A trained network in a tilted place; a network that is trained on, or anew, is the same one here."""
    data = load_data("digits", holdout=0.0)
    trained = []

    def train(net, source, config, progress=None):
        trained.append((source.train.num_images, source.policy, config.epochs))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deployments, "train", train)
        patch.setattr(deployments, "assess", lambda *args, **how: _assess(*args, **{**how, "candidates": 12}))
        places = run_deployments(
            network,
            data,
            DemoConfig().training,
            epochs=7,
            tune_epochs=5,
            poses=(TILTED,),
        )
    return places[0], trained, data


_assess = deployments.assess


def test_the_networks_are_trained_as_they_are_told(found):
    _, trained, data = found
    images = data.train.num_images
    assert [(n, str(policy) if policy else None, epochs) for n, policy, epochs in trained] == [
        (images, None, 7),
        (images, "clips:pose,frames=5", 7),
        (299, None, 5),
    ]


def test_networks_are_built_from_the_seed(monkeypatch):
    def build(seed):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))  # from torch's numbers, as timm's builders do

    built = []
    monkeypatch.setattr(deployments, "train", lambda net, *about, **how: built.append(net[1].weight.clone()))
    for start in (1, 2):
        torch.manual_seed(start)
        before = torch.random.get_rng_state()
        run_deployments(
            build, load_data("digits", holdout=0.0), DemoConfig().training, epochs=1, tune_epochs=1, poses=()
        )
        assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(weight, built[0]) for weight in built)


def test_a_tilt_is_repaired(found):
    tilted, *_ = found
    assert tilted.way("advised").gain > 0.1
    assert "rotate(-" in tilted.sentence()
    assert tilted.way("retrained").accuracy == tilted.way("bare").accuracy  # the same network here
    assert tilted.against["bare"][0] == pytest.approx(tilted.way("advised").gain)
    assert tilted.way("advised").cost == tilted.assessment.advised.finalist.cost
    assert "not decided" not in tilted.sentence()
    assert "probabilities" not in tilted.sentence()
    kept = dataclasses.replace(tilted, assessment=dataclasses.replace(tilted.assessment, choice=0))
    assert "keep the model" in kept.sentence()


def test_a_clip_for_probabilities_is_no_gain_in_accuracy(found):
    tilted, *_ = found
    assessed = tilted.assessment
    (number,) = [n for n, row in enumerate(assessed.rows) if row is assessed.chosen]
    # The same accuracy as the bare network on the images that judged, and decidedly better probabilities.
    gain = dataclasses.replace(
        assessed.chosen.gain, gain=0.0, gain_error=0.01, scaled_loss_gain=-0.1, scaled_loss_gain_error=0.01
    )
    rows = [dataclasses.replace(row, gain=gain) if n == number else row for n, row in enumerate(assessed.rows)]
    likelier = dataclasses.replace(assessed, rows=tuple(rows))
    assert likelier.verdict == "likelihood"
    ways = [
        dataclasses.replace(way, gain=-0.003, gain_error=0.007) if way.name == "advised" else way for way in tilted.ways
    ]
    said = dataclasses.replace(tilted, assessment=likelier, ways=tuple(ways)).sentence()
    assert "% (not decided) with" in said
    assert "for its probabilities." in said


def test_the_images_that_test_are_not_those_that_are_labelled(found):
    tilted, _, data = found
    scenes = [deployments._Scene(data, pose, 0) for pose in (POSES[0], TILTED)]
    shown = [{scene.labelled.raw(n).numpy().tobytes() for n in range(299)} for scene in scenes]
    for scene, labelled in zip(scenes, shown, strict=True):
        others = {scene.test.raw(n).numpy().tobytes() for n in range(scene.test.num_images)}
        assert len(labelled & others) <= 2  # digits that are equal to the last pixel
    assert tilted.images == scenes[0].test.num_images == 300
    # A picture of one place stands at the same spot in the other.
    assert torch.equal(scenes[0].test.labels, scenes[1].test.labels)


def test_a_better_way_is_said(found):
    tilted, *_ = found
    better = dataclasses.replace(tilted, against={**tilted.against, "retrained": (-0.1, 0.02)})
    assert "Decidedly better: retrained with moved images" in better.sentence()
    undecided = dataclasses.replace(tilted, against={**tilted.against, "retrained": (-0.1, 0.06)})
    assert "retrained" not in undecided.sentence()


def test_the_report_opens_with_it_and_folds_the_comparison(found):
    tilted, *_ = found
    places = [tilted, dataclasses.replace(tilted, pose=POSES[2])]
    first = opening(places, "a network on digits")
    assert len(columns(places)) == len(rows(places)[0]) == 5
    assert [row[0] for row in rows(places)] == [way.title for way in places[0].ways]
    html = report_html(ComparisonResult.from_dict(result_record()), opening=first)
    assert html.index("One trained network") < html.index(places[0].pose.title) < html.index("Show it")
    assert html.index("Show it") < html.index("Accuracy and cost")
    record = json.loads(json.dumps([one.to_dict() for one in places]))
    assert record[0]["pose"]["genotype"] == "rotate(20)"
    assert record[0]["sentence"] == tilted.sentence()


def test_images_must_be_in_memory(found):
    *_, data = found
    assert isinstance(data.test, MemorySet)
    with pytest.raises(InputError, match="images in memory with a class each, got digit_scenes"):
        run_deployments(network, load_data("digit_scenes"), DemoConfig().training, epochs=1, tune_epochs=1)
