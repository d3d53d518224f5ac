"""Arms of segmentation: equal beginnings, exact resumption, nothing left behind, and a table from data to page."""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("mmseg")

from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from reproduce_cases import TABLE, pretended
from segment_cases import BARE, CONFIG, LEARNED, LONG, MOVING, SETTING, accelerator, made, make_scenes, setting

from image2video.cli import main
from image2video.data import Augmentation
from image2video.errors import InputError, MissingError, StateError
from image2video.integrations.openmmlab import CONFIGS
from image2video.integrations.openmmlab.exact_resume import KEY
from image2video.reproduce import Cell, Worker, load_experiment, segment, segment_config, segment_data, segment_runner
from image2video.reproduce.data import Shelf
from image2video.reproduce.learned import START
from image2video.reproduce.policies import Policy
from image2video.reproduce.segment import first_weights
from image2video.reproduce.segment_config import plain_config
from image2video.reproduce.segment_runner import Watch, fit, latest_checkpoint
from image2video.runs.random_state import random_state

__all__ = ["pretended"]  # a fixture


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def weights(root: Path) -> dict[str, torch.Tensor]:
    return dict(first_weights(plain_config(setting(), root), 0))


class Recording(Watch):
    """Writes down the weights that a training begins with, and the images of every step."""

    seen: list[Recording]

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.begin: dict[str, torch.Tensor] = {}
        self.images: list[torch.Tensor] = []
        self.seen.append(self)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if batch_idx == 0:
            self.begin = {name: value.clone() for name, value in runner.model.state_dict().items()}
        self.images.append(torch.cat([image.flatten() for image in data_batch["inputs"]]))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Recording]:
    Recording.seen = []
    monkeypatch.setattr(segment_runner, "Watch", Recording)
    return Recording.seen


def test_all_arms_of_a_seed_begin_alike_and_read_the_same_images(root, weights, seen, tmp_path):
    for arm in (BARE, LONG, MOVING, LEARNED):
        fit(made(arm, root, tmp_path / arm.name), weights, accelerator())
    bare, long, moving, learned = seen
    assert bare.begin.keys() == weights.keys() < moving.begin.keys()
    assert learned.begin.keys() - weights.keys() == {"width", "_extra_state"}
    assert learned.begin["width"].tolist() == pytest.approx([START] * 5)
    for other in (bare, long, moving, learned):
        for name, value in weights.items():
            assert torch.equal(other.begin[name], value), name
        for first, second in zip(bare.images, other.images, strict=other is not long):
            assert torch.equal(first, second)
    assert (len(bare.images), len(long.images)) == (2, 4)
    assert not torch.equal(bare.images[0], bare.images[1])


def test_another_seed_begins_otherwise(root, weights, seen, tmp_path):
    others = first_weights(plain_config(setting(), root), 1)
    assert not torch.equal(others["backbone.stem.0.weight"], weights["backbone.stem.0.weight"])
    for seed in (0, 1):
        fit(made(BARE, root, tmp_path / str(seed), seed=seed), weights, accelerator())
    assert not torch.equal(seen[0].images[0], seen[1].images[0])


class KilledError(Exception):
    pass


@pytest.mark.parametrize("arm", [MOVING, LEARNED], ids=lambda arm: arm.name)
def test_a_killed_run_ends_as_one_that_went_through(arm, root, weights, monkeypatch, tmp_path):
    monkeypatch.setattr(segment_config, "_LEAST_BETWEEN_SAVES", 2)
    through = fit(made(arm, root, tmp_path / "through", steps=5), weights, accelerator())

    def kill(stage: str, done: int, total: int, **figures: float) -> None:
        if done == 3:
            raise KilledError

    broken = tmp_path / "broken"
    with pytest.raises(KilledError):
        fit(made(arm, root, broken, steps=5), weights, accelerator(), progress=kill)
    assert latest_checkpoint(broken) == broken / "iter_2.pth"
    steps = []
    torch.manual_seed(99)  # whatever stands in the generators of a new process
    resumed = fit(
        made(arm, root, broken, steps=5),
        weights,
        accelerator(),
        progress=lambda _, done, total, **f: steps.append(done),
    )
    assert steps == [3, 4, 5]
    assert resumed.metrics == pytest.approx(through.metrics, nan_ok=True)
    for name, value in through.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
    assert resumed.seconds > 0
    again = fit(made(arm, root, broken, steps=5), weights, accelerator())  # killed before its record was written
    assert again.metrics == pytest.approx(through.metrics, nan_ok=True)


def test_the_last_whole_checkpoint(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    for step in (9, 10):
        (tmp_path / f"iter_{step}.pth").write_text("")
    assert latest_checkpoint(tmp_path) is None  # the first one may be half written
    (tmp_path / "last_checkpoint").write_text("/elsewhere/iter_9.pth")
    assert latest_checkpoint(tmp_path) == tmp_path / "iter_9.pth"
    (tmp_path / "last_checkpoint").write_text("")
    assert latest_checkpoint(tmp_path) == tmp_path / "iter_10.pth"


def test_nothing_is_left_behind(root, weights, tmp_path):
    def state() -> list[Any]:
        kept = random_state()
        instances = [list(kind._instance_dict) for kind in (DefaultScope, MMLogger, MessageHub)]
        draws = [random.getstate()[1], np.random.get_state()[1].tolist(), kept["torch"].tolist()]
        benchmark = torch.backends.cudnn.benchmark
        return [dict(os.environ), instances, draws, benchmark, torch.multiprocessing.get_start_method(allow_none=True)]

    before = state()
    config = made(BARE, root, tmp_path / "run")
    fit(config, weights, accelerator())
    assert state() == before
    fit(config, weights, accelerator(), train=False)
    assert state() == before


def test_a_loss_that_is_not_finite_stops_the_run(root, weights, tmp_path):
    config = made(BARE, root, tmp_path / "run", steps=4)
    broken = {
        name: torch.full_like(value, torch.inf) if "conv_seg" in name else value for name, value in weights.items()
    }
    with pytest.raises(StateError, match=r"the training loss must be finite, got (nan|inf) at step 1 of 4"):
        fit(config, broken, accelerator())
    assert latest_checkpoint(tmp_path / "run") is None


ARMS = [
    *TABLE["arms"][:3],
    {"name": "moving", "title": "translation, GSF", "genotype": "translate_x(0.1)", "fusion": "gsf"},
    {"name": "augmented", "title": "moved images", "augment": "clips:affine5"},
    {"name": "broken", "title": "what cannot be", "variant": "dilated"},
]


def table(folder: Path, arms: list[Any] = ARMS, **changes: Any) -> Path:
    row = {"name": "scenes", "metric": "mIoU", "scales": {"smoke": {**SETTING, **changes}}}
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({**TABLE, "rows": [row], "arms": arms}))
    return path


def test_a_whole_table_from_data_to_page(root, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = tmp_path / "out"
    argv = ["reproduce", str(table(tmp_path)), "--out", str(out), "--device", "cpu", "--data", f"digit_scenes={root}"]
    assert main(argv) == 0
    (row,) = json.loads((out / "own-smoke.json").read_text())["rows"]
    arms = {arm["arm"]: arm for arm in row["arms"]}
    assert row["model"] == SETTING["config"]
    for name, epochs, frames in (
        ("bare", 1 / 3, 4),
        ("bare_long", 2 / 3, 8),
        ("averaged", 2 / 3, 8),
        ("moving", 1 / 3, 8),
    ):
        assert (arms[name]["epochs"], arms[name]["frames"]) == (pytest.approx(epochs), frames)
        assert arms[name]["errors"] == []
        assert 0 <= arms[name]["score"]["mean"] <= 100
        known = [value for value in arms[name]["classes"].values() if value is not None]
        assert sum(known) / len(known) == pytest.approx(arms[name]["score"]["mean"])
        assert len(arms[name]["classes"]) == 11
    assert arms["augmented"]["policies"] == ["clips:affine5"]
    assert arms["averaged"]["macs"] == 2 * arms["bare"]["macs"] < arms["moving"]["macs"]
    assert arms["averaged"]["genotypes"] != []
    assert "UnsupportedError: arm 'broken' has variant='dilated'" in arms["broken"]["errors"][0]
    assert [path.name[:40] for path in (out / "weights").iterdir()] == ["digit_scenes-digit-scenes-fcn-small-1xb8"]
    assert list((out / "training").iterdir()) == []  # the broken one never began
    assert "nan" not in (out / "own-smoke.json").read_text().lower()
    text = " ".join((out / "own-smoke.md").read_text().split())
    assert (
        f"mIoU in percent on the test split of digit_scenes, last checkpoint; {SETTING['config']}, 16 labelled" in text
    )
    assert "2 steps" in text
    assert "per image of the crop's size" in text
    assert "mIoU (%) on digit_scenes, digit_scenes/fcn_small" in " ".join(capsys.readouterr().out.split())
    records = {path: path.read_bytes() for path in (out / "runs").iterdir()}
    assert main(argv) == 0
    assert {path: path.read_bytes() for path in (out / "runs").iterdir()} == records


def test_policies_are_scored_by_the_bare_segmentor_on_held_out_images(root, tmp_path, monkeypatch):
    config, asked, trained = plain_config(setting(), root), [], []

    def find_policy(family, own, told, folder, accelerator, *, check, score, progress):
        policy = Augmentation.parse(family)
        check(policy)
        asked.append(str(told))
        assert score(policy, None) == 12.5
        return str(policy), 3.0

    def pretend(own, weights, accelerator, *, progress):
        trained.append(own)
        return SimpleNamespace(metrics={"mIoU": 12.5})

    monkeypatch.setattr(segment, "find_policy", find_policy)
    monkeypatch.setattr(segment, "fit", pretend)
    arm = Cell("arm", "an arm", genotype="translate_x(0.1)", fusion="gsf", augment="search:trivialaugment")
    for changes in ({"steps": 8}, {"steps": 6}, {"seed": 1}, {"augment_minutes": 1.0}, {"holdout": 0.5}):
        found = segment._policy(arm, setting(**changes), config, tmp_path, tmp_path / "run", accelerator(), None)
        assert found == Policy("trivialaugment:wide=true", 3.0)
    assert len(set(asked)) == 5  # other searches
    first = trained[0]
    assert first.train_cfg.max_iters == 4  # half the steps
    assert first.model.type == config.model.type
    assert first.test_dataloader.dataset == config.val_dataloader.dataset
    assert "AugmentationPolicy" in [step["type"] for step in first.train_dataloader.dataset.pipeline]


def test_other_images_under_the_same_name_are_refused(root, tmp_path):
    other = make_scenes(tmp_path / "other", train=18)
    folder = tmp_path / "out" / "data"
    Shelf({"digit_scenes": str(root)}, folder)(setting())
    Shelf({"digit_scenes": str(root)}, folder)(setting())
    with pytest.raises(ValueError, match="holds results of another data set called 'digit_scenes'"):
        Shelf({"digit_scenes": str(other)}, folder)(setting(train_images=16))


def test_another_content_of_a_config_is_refused_and_one_that_fails_is_left_out(root, tmp_path):
    folder, name = tmp_path / "out" / "data", tmp_path / "own_1xb2-more.py"
    name.write_text(f"_base_ = {str(CONFIGS / CONFIG)!r}")
    shelf = {"digit_scenes": str(root)}
    Shelf(shelf, folder)(setting(config=str(name)))
    name.write_text(f"_base_ = {str(CONFIGS / CONFIG)!r}\noptim_wrapper = dict(optimizer=dict(lr=0.5))")
    with pytest.raises(InputError, match="holds results of another content of the config"):
        Shelf(shelf, folder)(setting(config=str(name)))
    name.write_text(f"_base_ = {str(CONFIGS / CONFIG)!r}\nload_from = 'coco.pth'")
    with pytest.raises(MissingError, match=r"'digit_scenes' cannot be used: .*load_from='coco\.pth'"):
        Shelf(shelf, folder)(setting(config=str(name)))


def test_a_run_of_other_processes_begins_anew(root, weights, tmp_path, monkeypatch):
    own = made(BARE, root, tmp_path / "run")
    fit(own, weights, accelerator())
    last = latest_checkpoint(tmp_path / "run")
    stored = torch.load(last, weights_only=False)
    stored[KEY]["processes"] *= 2
    torch.save(stored, last)
    steps = []
    with pytest.warns(UserWarning, match="was begun by 2 processes and is begun anew by 1"):
        fit(
            made(BARE, root, tmp_path / "run"),
            weights,
            accelerator(),
            progress=lambda _, done, *a, **f: steps.append(done),
        )
    assert steps == [1, 2]


def test_missing_data_say_which_and_how_to_get_them(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    camvid = setting(data="camvid", config="camvid/pspnet_r18-d8_1xb8-20k_camvid-480x360.py", options={})
    message = (
        "'camvid' could not be read from 'data/camvid', .* reads images/train, .*no such folder.*SegNet.*--data camvid"
    )
    with pytest.raises(MissingError, match=message):
        Shelf({}, tmp_path)(camvid)
    (tmp_path / "data/camvid/images/train").mkdir(parents=True)
    with pytest.raises(
        MissingError, match=r"train_dataloader\.dataset\.data_prefix\.seg_map_path='labels/train', test_"
    ):
        Shelf({}, tmp_path)(camvid)
    for name, how in (("voc", "VOCtrainval_11-May-2012.tar"), ("cityscapes", "an account is needed")):
        with pytest.raises(MissingError, match=f"'{name}' could not be read .*{how}"):
            Shelf({}, tmp_path)(setting(data=name))
    with pytest.raises(MissingError, match="'mine' is not known; give --data mine=FOLDER"):
        Shelf({}, tmp_path)(setting(data="mine"))
    assert Shelf({"mine": str(root)}, tmp_path)(setting(data="mine")).train_dataloader.dataset.data_root == str(root)


def test_without_mmsegmentation_the_other_rows_run(tmp_path, pretended, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "image2video.reproduce.segment_config", None)
    path = tmp_path / "own.yaml"
    scenes = {"name": "scenes", "metric": "mIoU", "scales": {"smoke": SETTING}}
    path.write_text(yaml.safe_dump({**TABLE, "rows": [*TABLE["rows"], scenes]}))
    assert main(["reproduce", str(path), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    assert len(pretended.asked) == 8
    error = " ".join(capsys.readouterr().err.split())
    assert "needs mmsegmentation, which cannot be imported here" in error
    assert "pip install '.[mmseg]' in a clone of image2video" in error
    assert "4 runs are left out" in error


def test_digit_scenes_are_written_once_and_whole(tmp_path, monkeypatch):
    images = torch.arange(2 * 24 * 24, dtype=torch.uint8).reshape(2, 1, 24, 24)
    labels = torch.arange(2 * 24 * 24).reshape(2, 24, 24).remainder(11).to(torch.uint8)
    monkeypatch.setattr(segment_data, "load_digit_scenes", lambda: ((images, labels), (images[:1], labels[:1])))
    root = segment_data.digit_scenes(tmp_path / "data")
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*.png")) == [
        *("images/test/0000.png", "images/train/0000.png", "images/train/0001.png"),
        *("labels/test/0000.png", "labels/train/0000.png", "labels/train/0001.png"),
    ]
    assert np.array_equal(np.asarray(segment_data.Image.open(root / "labels/train/0001.png")), labels[1].numpy())
    monkeypatch.setattr(segment_data, "load_digit_scenes", lambda: 1 / 0)
    assert segment_data.digit_scenes(tmp_path / "data") == root
    with pytest.raises(ZeroDivisionError):
        segment_data.digit_scenes(tmp_path / "more")
    assert list((tmp_path / "more").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["table2", "table3", "table5", "table6", "table7", "table8"])
def test_all_arms_of_the_rows_at_the_smoke_scale(name, tmp_path):
    experiment = load_experiment(name)
    worker = Worker(tmp_path, device="cpu")
    assert worker.run(experiment, "smoke") == []
    runs = [run for run in worker.planned(experiment, "smoke") if run.setting.config is not None]
    records = {run.arm.name: worker.book.read(run) for run in runs}
    assert {name: record.get("error") for name, record in records.items()} == dict.fromkeys(records)
    assert {"bare", "bare_long", "averaged", "none", "replica", "learned", "searched"} <= set(records)
    assert len({record["score"] for record in records.values()}) > 4
