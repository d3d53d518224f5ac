"""What `image2video search --task mmseg:CONFIG` refuses, with the keys of the config."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("mmseg")

from mmengine.config import Config
from mmseg.models.decode_heads import FCNHead
from mmseg.models.segmentors import EncoderDecoder
from mmseg_cases import build, tiny_config
from mmseg_search_cases import built, config

from image2video.cli import main
from image2video.errors import Image2VideoError, InputError, MissingError, UnsupportedError
from image2video.integrations.openmmlab import heads
from image2video.integrations.openmmlab.search_network import SegmentorFrames
from image2video.reproduce.miniatures import make_camvid
from image2video.search import Request, SearchConfig


@pytest.fixture(scope="module")
def camvid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_camvid(tmp_path_factory.mktemp("camvid"), train=8)


Change = Callable[[Config], Any]
REFUSED: dict[str, tuple[Change, type[Image2VideoError], str]] = {
    "no training data": (lambda c: c.pop("train_dataloader"), InputError, "has no train_dataloader"),
    "no data set": (lambda c: c.train_dataloader.pop("dataset"), InputError, r"no train_dataloader\.dataset"),
    "no model": (lambda c: c.pop("model"), InputError, "has no model"),
    "a path that does not exist": (
        lambda c: c.train_dataloader.dataset.update(data_root="/nowhere"),
        MissingError,
        r"train_dataloader\.dataset\.data_prefix\.img_path='images/train' with data_root='/nowhere'.*does not exist",
    ),
    "a folder without images": (
        lambda c: c.train_dataloader.dataset.update(img_suffix=".bmp"),
        Image2VideoError,
        r"no \.bmp file",
    ),
    "a wrapped backbone": (lambda c: c.model.backbone.update(type="VideoWrap"), InputError, "bare backbone"),
    "another segmentor": (lambda c: c.model.update(type="Nothing"), InputError, r"model \(Nothing\) cannot be built"),
    "too few classes": (
        lambda c: c.model.decode_head.update(num_classes=7),
        InputError,
        r"decode_head\.num_classes=7, but the data set has 11 classes",
    ),
    "no size": (
        lambda c: (c.model.data_preprocessor.update(size=None), c.train_dataloader.dataset.update(pipeline=[])),
        InputError,
        r"set model\.data_preprocessor\.size",
    ),
    "no test pipeline": (
        lambda c: (c.pop("val_dataloader"), c.pop("test_dataloader")),
        InputError,
        "no val_dataloader, test_dataloader or test_pipeline",
    ),
    "mixed images": (
        lambda c: c.train_dataloader.update(dataset={"type": "MultiImageMixDataset", "dataset": {}, "pipeline": []}),
        UnsupportedError,
        "MultiImageMixDataset",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_searched_is_refused_with_its_key(case: str, camvid: Path, tmp_path: Path) -> None:
    change, error, message = REFUSED[case]
    chosen = config(camvid)
    change(chosen)
    with pytest.raises(error, match=message):
        built(chosen, tmp_path)


def test_the_test_set_is_never_read(camvid: Path, tmp_path: Path) -> None:
    chosen = config(camvid)
    chosen.test_dataloader.dataset.data_root = "/nowhere"
    assert built(chosen, tmp_path).train.num_images == 8
    chosen.val_dataloader = chosen.test_dataloader
    request = Request(SearchConfig(T=2), held_out="val", workers=0)
    with pytest.raises(InputError, match="must not see the test set"):
        built(chosen, tmp_path, request)


def test_heads_without_a_loss_of_maps_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class OwnLoss(FCNHead):
        def loss(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            return {}

    class Queries(FCNHead):
        pass

    class OwnSegmentor(EncoderDecoder):
        def loss(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            return {}

    monkeypatch.setitem(heads._RULES, "Queries", object())
    for kind, message in ((OwnLoss, "OwnLoss computes its loss"), (Queries, "Queries has no loss of averaged maps")):
        segmentor = build(tiny_config("fcn"))
        segmentor.auxiliary_head.__class__ = kind
        with pytest.raises(UnsupportedError, match=message):
            SegmentorFrames(segmentor)
    segmentor = build(tiny_config("fcn"))
    segmentor.__class__ = OwnSegmentor
    with pytest.raises(UnsupportedError, match=r"OwnSegmentor.*EncoderDecoder and CascadeEncoderDecoder"):
        SegmentorFrames(segmentor)


def test_images_that_a_batch_cannot_hold_are_refused(camvid: Path, tmp_path: Path) -> None:
    chosen = config(camvid)
    pipeline = chosen.train_dataloader.dataset.pipeline
    chosen.train_dataloader.dataset.pipeline = [step for step in pipeline if step["type"] != "RandomCrop"]
    problem = built(chosen, tmp_path)
    with pytest.raises(InputError, match=r"different sizes in one batch .*RandomCrop"):
        list(problem.train.batches(8, augment=True).epoch(0))
    (tmp_path / "broken").mkdir()
    make_camvid(tmp_path / "broken" / "data", train=3)
    victim = next((tmp_path / "broken" / "data" / "images" / "train").iterdir())
    victim.write_bytes(b"no image")
    problem = built(config(tmp_path / "broken" / "data"), tmp_path)
    with pytest.raises(InputError, match=victim.name):
        list(problem.train.batches(3).epoch(0))


@pytest.mark.parametrize(("kind", "what"), [("images", "its shades"), ("labels", "the numbers of classes")])
def test_files_of_sixteen_bits_are_refused_with_their_name(tmp_path: Path, kind: str, what: str) -> None:
    """mmsegmentation would take class 256 + 3 for class 3."""
    make_camvid(tmp_path / "data", train=3)
    victim = min((tmp_path / "data" / kind / "train").iterdir())
    Image.fromarray(np.full((72, 96), 259, np.uint16)).save(victim, "PNG")
    problem = built(config(tmp_path / "data"), tmp_path)
    with pytest.raises(
        InputError, match=rf"{victim.name} must have 8 bits a channel, got 16 .*{what} would be cut to 8"
    ):
        list(problem.train.batches(3).epoch(0))


def test_labels_that_are_no_class_are_refused_with_their_file(camvid: Path, tmp_path: Path) -> None:
    chosen = config(camvid)
    chosen.train_dataloader.dataset.type = "BaseSegDataset"  # which leaves the 11 of unlabelled pixels
    with pytest.raises(InputError, match=r"0001TP_train.*labels from 0 to 11, but model\.decode_head\.num_classes=11"):
        list(built(chosen, tmp_path).train.batches(8).epoch(0))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--task", "mmseg:nowhere.py"], "nowhere.py: no config there"),
        (["--task", "mmdet:faster.py"], "no installed package builds the task 'mmdet:faster.py'"),
        (["--task", "tiny.py"], "a task is BUILDER:WHAT"),
        (["--task", "mmseg:tiny.py", "--holdout", "0.3"], "--holdout: no effect here"),
        (["--task-validation", "val"], "--task-validation and --task-size are for --task"),
        (["--task-size", "[32,40]"], "--task-validation and --task-size are for --task"),
        (["--task", "mmseg:tiny.py", "--model", "resnet18"], "--model: no effect with --task"),
        (["--task", "mmseg:tiny.py", "--data", "folder:x", "--compare", "random:2"], "--data, --compare: no effect"),
    ],
)
def test_options_without_effect_and_unknown_tasks(argv, message, capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.py").write_text("x = 1\n")
    assert main(["search", *argv, "--device", "cpu", "--out", "out"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
