"""Genotypes of arms of segmentation: searches with the row's segmentor, rankings, and searches across tasks."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("mmseg")

from accelerate import Accelerator
from mmengine.config import Config
from mmseg_cases import build
from mmseg_search_cases import TEST, config
from reproduce_cases import TABLE, TINY, small_space

from image2video import Genotype
from image2video.data import load_data
from image2video.errors import InputError, UnsupportedError
from image2video.experiments import genotypes as of_classification
from image2video.reproduce import Cell, Setting, load_experiment
from image2video.reproduce import segment_genotypes as of_segmentation
from image2video.reproduce.classify import choose
from image2video.reproduce.data import Shelf
from image2video.reproduce.genotypes import data_settings
from image2video.reproduce.miniatures import make_camvid
from image2video.reproduce.parse import experiment_from
from image2video.reproduce.segment_genotypes import choose_for_segmentor
from image2video.training import make_accelerator

SETTING = Setting(
    data="camvid",
    config="camvid/any.py",
    T=2,
    batch_size=77,
    search={"epochs": 1, "tune_epochs": 0, "lr": 0.05, "tau_lr": 0.1, "fusion": "tsm"},
)
TRAINED, HELD_OUT = [0, 1, 2, 3, 4, 6, 7, 9], [5, 8, 10, 11]
pytestmark = pytest.mark.filterwarnings("ignore:.*chose the identity")


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    return make_camvid(tmp_path / "camvid", train=12)


@pytest.fixture
def small(tmp_path: Path) -> str:
    return small_space(tmp_path)


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return make_accelerator("cpu")


def plain(camvid: Path, decode: str = "fcn", **model: Any) -> Config:
    """The plain config of a row: a part of the training images, the rest as held-out images, the test split."""
    found = config(camvid, decode, **model)
    # mmengine collects all garbage where it packs a list of images.
    found.train_dataloader.dataset.serialize_data = found.test_dataloader.dataset.serialize_data = False
    found.val_dataloader.dataset = {**found.train_dataloader.dataset, "indices": HELD_OUT, "pipeline": TEST}
    found.train_dataloader.dataset.indices = TRAINED
    found.train_dataloader.batch_size = 4
    return found


def spoil(camvid: Path, split: str, numbers: list[int] | None = None) -> None:
    """Make images of a split, all or some, unreadable."""
    paths = sorted((camvid / "images" / split).iterdir())
    for number in range(len(paths)) if numbers is None else numbers:
        paths[number].write_bytes(b"no image")


def cell(genotype: str, fusion: str = "gsf", **more: Any) -> Cell:
    return Cell("arm", "arm", genotype, fusion, **more)


def nothing(*args: Any, **more: Any) -> Any:
    raise AssertionError("not needed")


class Searches:
    """Stands in for `search`: writes down what it was given, searches for nothing."""

    def __init__(self, genotype: str = "rotate(3)") -> None:
        self.given: list[tuple[Any, Any, dict[str, Any]]] = []
        self.genotype = genotype

    def __call__(self, network: Any, train: Any, settings: Any, **more: Any) -> Any:
        self.given.append((train, settings, more))
        return type("Result", (), {"genotype": Genotype.parse(self.genotype), "seconds": 6.0})


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> Searches:
    stand_in = Searches()
    monkeypatch.setattr(of_segmentation, "search", stand_in)
    return stand_in


@pytest.fixture
def unbuilt(searches: Searches, monkeypatch: pytest.MonkeyPatch) -> Searches:
    """The same, where neither network nor images are built."""
    names = ("network", "train", "holdout", "task", "mean", "std", "short_name", "model")
    problem = SimpleNamespace(**dict.fromkeys(names))
    monkeypatch.setattr(of_segmentation, "build_from", lambda config, name, request: problem)
    return searches


# Searches


def test_a_search_is_kept_goes_on_and_never_sees_the_test_split(
    camvid, small, tmp_path, accelerator, monkeypatch
) -> None:
    spoil(camvid, "test")
    setting = dataclasses.replace(SETTING, space=small)
    steps: list[str] = []

    def found(folder: str, progress: Any) -> Any:
        places = {"load": nothing, "progress": progress}
        return choose_for_segmentor(cell("searched"), setting, plain(camvid), tmp_path / folder, accelerator, **places)

    whole = found("whole", lambda stage, *_, **figures: steps.append(stage))
    assert whole.origin == "searched on camvid"
    assert whole.seconds > 0
    left = [2 * len(steps) // 3]

    def stop(*_: Any, **figures: float) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        found("stopped", stop)
    (folder,) = (tmp_path / "stopped").iterdir()
    assert (folder / "checkpoint").is_dir()
    assert found("stopped", None).genotype == whole.genotype
    assert not (folder / "checkpoint").exists()
    taus = [(next((tmp_path / name).glob("*/")) / "tau.json").read_bytes() for name in ("whole", "stopped")]
    assert taus[0] == taus[1]
    monkeypatch.setattr(of_segmentation, "search", nothing)
    assert found("whole", None) == whole


def test_a_search_has_the_images_and_the_options_of_the_row(camvid, tmp_path, accelerator, searches) -> None:
    for setting in (SETTING, dataclasses.replace(SETTING, search={**SETTING.search, "batch_size": 3})):
        choose_for_segmentor(cell("searched"), setting, plain(camvid), tmp_path, accelerator, load=nothing)
    (train, settings, more), (_, others, _) = searches.given
    held_out = more["validation"]
    assert (train.num_images, held_out.num_images) == (8, 4)
    spoil(camvid, "test")
    spoil(camvid, "train", HELD_OUT)
    assert sum(len(labels) for _, labels in train.batches(3).epoch(0)) == 8
    with pytest.raises(InputError, match=r"0001TP_train00005"):
        next(iter(held_out.batches(3).epoch(0)))
    assert (settings.batch_size, others.batch_size) == (4, 3)
    assert (settings.epochs, settings.T, settings.space, settings.residual) == (1, 2, "affine5", False)
    assert more["task"].metric == "mIoU"
    assert more["resume"]


def test_what_decides_a_search_parts_it_from_others(camvid, tmp_path, accelerator, unbuilt) -> None:
    def found(setting: Setting = SETTING, change: Any = None, folder: Path = camvid) -> int:
        row = plain(folder)
        if change is not None:
            change(row)
        choose_for_segmentor(cell("searched"), setting, row, tmp_path / "kept", accelerator, load=nothing)
        return len(unbuilt.given)

    assert found() == found() == 1
    moved = make_camvid(tmp_path / "elsewhere", train=12)
    assert found(folder=moved) == 1
    same = [{"seeds": 4}, {"batch_size": 5}, {"epochs": 9}, {"hours": 3.0}, {"steps": 7}, {"finetune_lr": 0.5}]
    assert [found(dataclasses.replace(SETTING, **fields)) for fields in same] == [1] * len(same)
    assert found(change=lambda row: row.merge_from_dict({"train_dataloader.num_workers": 1})) == 1
    other = [{"seed": 1}, {"T": 3}, {"space": "gentle"}, {"search": {**SETTING.search, "epochs": 2}}, {"data": "own"}]
    assert [found(dataclasses.replace(SETTING, **fields)) for fields in other] == [2, 3, 4, 5, 6]
    changes = [
        {"model.decode_head.loss_decode.loss_weight": 2.0},
        {"train_dataloader.batch_size": 2},
        {"train_dataloader.dataset.indices": TRAINED[:7]},
        {"val_dataloader.dataset.indices": HELD_OUT[:3]},
    ]
    numbers = [found(change=lambda row, keys=keys: row.merge_from_dict(keys)) for keys in changes]

    def no_flip(row: Config) -> None:
        row.train_dataloader.dataset.pipeline = [
            s for s in row.train_dataloader.dataset.pipeline if "Flip" not in s.type
        ]

    assert [*numbers, found(change=no_flip)] == [7, 8, 9, 10, 11]


def test_without_held_out_images_a_search_halves_the_training_part(camvid, tmp_path, accelerator, searches) -> None:
    row = plain(camvid)
    row.val_dataloader = None
    choose_for_segmentor(cell("searched"), SETTING, row, tmp_path, accelerator, load=nothing)
    ((train, _, more),) = searches.given
    assert (train.num_images, more["validation"]) == (8, None)


def test_held_out_images_are_never_the_test_split(camvid, tmp_path, accelerator) -> None:
    row = plain(camvid)
    row.val_dataloader = row.test_dataloader
    with pytest.raises(InputError, match="a search must not see the test set"):
        choose_for_segmentor(cell("searched"), SETTING, row, tmp_path, accelerator, load=nothing)


def test_a_head_that_the_search_does_not_know_is_named(camvid, tmp_path, accelerator) -> None:
    row = plain(camvid)
    row.model.type = "SegTTAModel"
    row.model = {"type": "DepthEstimator", **{k: v for k, v in row.model.items() if k != "type"}}
    with pytest.raises(UnsupportedError, match=r"model\.type='DepthEstimator'"):
        choose_for_segmentor(cell("searched"), SETTING, row, tmp_path, accelerator, load=nothing)


def test_a_smoke_search_on_written_scenes(small, tmp_path, accelerator) -> None:
    """Through the shelf, with the row's own config; both tasks of Table 8."""
    (row,) = [row for row in load_experiment("table8").rows if row.settings["smoke"].config]
    setting, shelf = (
        dataclasses.replace(row.settings["smoke"], space=small, train_images=24),
        Shelf({}, tmp_path / "data"),
    )
    found = []
    for arm in (cell("searched"), cell("searched@digits")):
        one = choose_for_segmentor(arm, setting, shelf(setting), tmp_path / "searches", accelerator, load=shelf)
        found.append((one.origin, one.seconds > 0))
    assert found == [("searched on digit_scenes", True), ("searched on digits", True)]
    assert len(list((tmp_path / "searches").glob("*.json"))) == 2


# Rankings


def test_a_ranking_reads_the_held_out_images_alone(camvid, tmp_path, accelerator) -> None:
    row, arm = plain(camvid), cell("fixed_weights", "none", budget="none", start="bare_long")
    weights = tmp_path / "weights.pt"
    torch.save(build(row.model).state_dict(), weights)
    spoil(camvid, "test")
    spoil(camvid, "train", TRAINED)

    def ranked(**more: Any) -> Any:
        return choose_for_segmentor(arm, SETTING, row, tmp_path, accelerator, load=nothing, **more)

    found = ranked(weights=weights)
    assert found.origin == "ranked on 4 held-out images"
    told = {key: found.genotype.provenance[key] for key in ("T", "images", "space")}
    assert told == {"T": 2, "images": 4, "space": "gentle"}
    with pytest.raises(InputError, match="it needs start"):
        ranked()
    spoil(camvid, "train", HELD_OUT)
    with pytest.raises(InputError, match=r"images/train/0001TP_train000(05|08|10|11)\.jpg"):
        ranked(weights=weights)
    row.val_dataloader = None
    with pytest.raises(InputError, match="ranks genotypes on held-out images, and there are none"):
        ranked(weights=weights)


def test_a_ranking_is_for_the_weights_and_the_clip_of_the_arm(camvid, tmp_path, accelerator, monkeypatch) -> None:
    row, arm = plain(camvid), cell("fixed_weights", "none", budget="none", start="bare_long")
    trained = build(row.model, seed=7)
    torch.save(trained.state_dict(), tmp_path / "weights.pt")
    given: dict[str, Any] = {}

    def rank(network: Any, images: Any, **options: Any) -> Any:
        given.update(options, network=network, count=images.num_images)
        return type("Ranking", (), {"best": Genotype.parse("rotate(3)"), "images": 4, "seconds": 1.0})

    monkeypatch.setattr(of_segmentation, "rank_genotypes", rank)
    setting = dataclasses.replace(SETTING, schedule="centred", T=3)
    found = choose_for_segmentor(
        arm, setting, row, tmp_path, accelerator, load=nothing, weights=tmp_path / "weights.pt"
    )
    assert (str(found.genotype), given["count"]) == ("rotate(3)", 4)
    assert (given["T"], given["schedule"], given["batch_size"], given["space"]) == (3, "centred", 12, "gentle")
    state = given["network"].segmentor.state_dict()
    assert all(torch.equal(state[key], value) for key, value in trained.state_dict().items())


# Other words


def test_other_words_mean_what_they_do_in_classification(camvid, tmp_path, accelerator) -> None:
    words = [Cell("bare", "bare"), cell("learned", "none", learned=True), cell("identity"), cell("random:2")]
    for arm in [*words, cell("translate_x(0.1)", magnitude=0.5)]:
        there = choose(arm, Setting(**TINY), None, tmp_path, accelerator, load=nothing)
        here = choose_for_segmentor(arm, SETTING, plain(camvid), tmp_path, accelerator, load=nothing)
        assert here == there


def test_the_magnitudes_of_what_is_found_are_scaled(camvid, tmp_path, accelerator, unbuilt) -> None:
    arm = cell("searched", magnitude=2.0)
    found = choose_for_segmentor(arm, SETTING, plain(camvid), tmp_path, accelerator, load=nothing)
    assert str(found.genotype) == "rotate(6)"


# Other data sets


DIGITS = {"config": None, "model": "cifar_resnet8", "train_images": 60, "image_size": 8, "batch_size": 32}


def digits(setting: Setting) -> Any:
    assert (setting.data, setting.config, setting.train_images) == ("digits", None, 60)
    return load_data("digits", train_images=60, holdout=setting.holdout, image_size=8)


def test_a_genotype_of_segmentation_is_found_by_a_classifier(camvid, small, tmp_path, accelerator, monkeypatch) -> None:
    fields = {"options": {"model.x": 1}, "steps": 3, "elsewhere": {"digits": DIGITS}, "holdout": 0.25, "space": small}
    setting = dataclasses.replace(SETTING, **fields)
    arm = cell("searched@digits")
    own, other = data_settings(arm, setting)
    assert own == setting
    assert (other.options, other.steps, other.elsewhere, other.T) == ({}, None, {}, 2)
    found = choose_for_segmentor(arm, setting, plain(camvid), tmp_path, accelerator, load=digits)
    assert found.origin == "searched on digits"
    # A row of classification with those images and that network has no need to search again.
    monkeypatch.setattr(of_classification, "search", nothing)
    fields = {"data": "digits", **{name: value for name, value in DIGITS.items() if name != "config"}}
    row = Setting(**fields, T=2, holdout=0.25, space=small, search=SETTING.search)
    assert choose(cell("searched"), row, None, tmp_path, accelerator, load=nothing) == found


def test_a_genotype_of_classification_is_found_by_a_segmentor(camvid, tmp_path, accelerator, unbuilt) -> None:
    setting = Setting(**{**TINY, "search": SETTING.search}, elsewhere={"camvid": {"config": "camvid/any.py"}})
    asked: list[Setting] = []

    def load(target: Setting) -> Config:
        asked.append(target)
        return plain(camvid)

    found = choose(cell("searched@camvid"), setting, None, tmp_path, accelerator, load=load)
    assert (str(found.genotype), found.origin) == ("rotate(3)", "searched on camvid")
    (target,) = asked
    assert (target.data, target.config, target.train_images) == ("camvid", "camvid/any.py", None)
    # Rows of segmentation share it where their options are the same.
    same = dataclasses.replace(SETTING, T=2)
    again = choose_for_segmentor(cell("searched"), same, plain(camvid), tmp_path, accelerator, load=nothing)
    assert (again, len(unbuilt.given)) == (found, 1)


def test_one_segmentor_for_another(camvid, tmp_path, accelerator, searches) -> None:
    other = make_camvid(tmp_path / "other", train=12, seed=5)
    setting = dataclasses.replace(SETTING, elsewhere={"own": {"config": "own/any.py", "search": {"epochs": 3}}})
    arm = cell("searched@own")
    found = choose_for_segmentor(
        arm, setting, plain(camvid), tmp_path, accelerator, load=lambda one: plain(other, "psp")
    )
    assert found.origin == "searched on own"
    ((_, settings, more),) = searches.given
    assert settings.epochs == 3
    assert more["provenance"] == {"dataset": "mmseg:own", "backbone": "ResNetV1c, PSPHead"}


def test_a_config_is_not_taken_for_other_data() -> None:
    with pytest.raises(InputError, match=r"config, camvid/any.py, is for 'camvid'; say elsewhere\.digits\.config"):
        data_settings(cell("searched@digits"), SETTING)
    (row,) = TABLE["rows"]
    wrong = {**row, "scales": {"smoke": {**TINY, "elsewhere": {"digits": {"modell": "x"}}}}}
    with pytest.raises(InputError, match=r"rows\[0\]\.scales\.smoke\.elsewhere\.digits: unknown key 'modell'"):
        experiment_from({**TABLE, "rows": [wrong]}, "own", {})
