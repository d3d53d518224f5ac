"""The benchmark of CamVid's arms: its runs, its metric, its tables, and the frames of its figure."""

import importlib
import json
import math
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("mmseg")

import mmseg_cases  # noqa: F401 (silences mmengine's log)
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.evaluation import IoUMetric
from mmseg_miniatures import CAMVID_UNLABELLED, make_camvid

from image2video import Genotype
from image2video.errors import MissingError
from image2video.integrations.openmmlab import CamVidDataset

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
camvid = importlib.import_module("camvid")
summary = importlib.import_module("camvid_summary")
sys.path.pop(0)

ARMS = ("none", "replica", "random", "searched", "tsm", "gsf")
SIZE = (48, 64)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_camvid(tmp_path_factory.mktemp("camvid"), size=SIZE)


@pytest.fixture(autouse=True)
def _scope() -> None:
    init_default_scope("mmseg")


def options(data: Path, work: Path, **changes) -> Namespace:
    given = {"data": str(data), "work": str(work), "scale": "cpu", "network": "pspnet", "steps": 2, "threads": 1}
    return Namespace(**{**given, "arms": "", "seeds": 0, "only": "", **changes})


def narrow(config: Config) -> Config:
    """The same config with few channels, on crops of 32 × 48."""
    norm = {"type": "BN", "requires_grad": True}
    config.merge_from_dict(
        {
            "model.backbone.base_channels": 8,
            "model.backbone.stem_channels": 8,
            "model.decode_head.in_channels": 64,
            "model.decode_head.channels": 8,
            "model.auxiliary_head.in_channels": 32,
            "model.auxiliary_head.channels": 8,
            "model.data_preprocessor.size": (32, 48),
            "model.backbone.norm_cfg": norm,
        }
    )
    for step in config.train_dataloader.dataset.pipeline:
        if step.type == "RandomCrop":
            step.crop_size = (32, 48)
    for loader in (config.train_dataloader, config.test_dataloader):
        for step in loader.dataset.pipeline:
            if step.type in ("RandomResize", "Resize"):
                step.scale = (64, 48)
    config.train_dataloader.batch_size = 2
    return config


def test_the_metric_leaves_unlabelled_pixels_out() -> None:
    label = torch.tensor([[[3, 3, 8], [255, 255, 8]]])
    right, noise = label.clone(), label.clone()
    right[label == 255] = 0
    noise[label == 255] = 8
    scores = []
    for prediction in (right, noise):
        metric = camvid.ExactIoU(iou_metrics=["mIoU"])
        metric.dataset_meta = CamVidDataset.METAINFO
        metric.process({}, [{"pred_sem_seg": {"data": prediction}, "gt_sem_seg": {"data": label}}])
        scores.append(metric.compute_metrics(metric.results))
    assert scores[0]["mIoU"] == scores[1]["mIoU"] == 100
    assert scores[0]["aAcc"] == 100
    assert scores[0]["IoU.road"] == scores[0]["IoU.car"] == 100
    assert math.isnan(scores[0]["IoU.sky"])


def test_the_class_metric_agrees_with_mmsegmentations_own() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, stock = camvid.ExactIoU(iou_metrics=["mIoU"]), IoUMetric(iou_metrics=["mIoU"])
    for metric in (ours, stock):
        metric.dataset_meta = CamVidDataset.METAINFO
    label, prediction = (torch.randint(11, (1, 20, 30), generator=generator) for _ in range(2))
    sample = {"pred_sem_seg": {"data": prediction}, "gt_sem_seg": {"data": label}}
    for metric in (ours, stock):
        metric.process({}, [sample])
    a, b = ours.compute_metrics(ours.results), stock.compute_metrics(stock.results)
    assert a["mIoU"] == pytest.approx(b["mIoU"], abs=0.006)
    assert a["aAcc"] == pytest.approx(b["aAcc"], abs=0.006)
    both = ((prediction == 4) & (label == 4)).sum()
    assert a["IoU.pavement"] == pytest.approx(float(100 * both / ((prediction == 4) | (label == 4)).sum()))


def test_the_arms_are_the_configs() -> None:
    assert {arm.config for arm in camvid.ARMS.values()} == {"", *ARMS}


@pytest.mark.filterwarnings("ignore:The draw is False:UserWarning")  # mmsegmentation's hook, in every stock config
def test_an_arm_trains_two_steps_and_tests(data: Path, tmp_path: Path) -> None:
    config = narrow(camvid.arm_config("gsf", 3, options(data, tmp_path)))
    runner = Runner.from_cfg(config)
    before = {key: value.clone() for key, value in runner.model.state_dict().items()}
    runner.train()
    moved = [key for key, value in runner.model.named_parameters() if not torch.equal(value, before[key])]
    assert runner.iter == 2
    assert any(key.startswith("video_fusion.") for key in moved)
    assert any(key.startswith("backbone.") for key in moved)
    metrics = runner.test()
    assert 0 <= metrics["test/mIoU"] <= 100
    assert sorted(path.suffix for path in (tmp_path / "pspnet_gsf_3" / "predictions").iterdir()) == [".png"] * 3


@pytest.mark.slow
def test_the_benchmark_runs_and_goes_on_without_what_is_done(data: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "camvid.py"), "--data", str(data), "--work", str(tmp_path)]
    command += ["--arms", "bare,replica", "--seeds", "1", "--steps", "2"]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    files = [tmp_path / f"pspnet_{name}_0" / "result.json" for name in ("bare", "replica")]
    results = [json.loads(path.read_text()) for path in files]
    assert [result["frames"] for result in results] == [8, 24]
    assert results[1]["video"]["genotype"] == "identity"
    written = [path.stat().st_mtime_ns for path in files]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    assert [path.stat().st_mtime_ns for path in files] == written


def test_seeds_come_one_after_the_other_and_each_arm_has_its_own_number(data: Path, tmp_path: Path) -> None:
    runs = camvid.planned(options(data, tmp_path))
    assert runs[: len(camvid.ARMS)] == [(name, 0) for name in camvid.ARMS]
    assert runs[len(camvid.ARMS) :] == [("bare", 1), ("searched", 1), ("bare", 2), ("searched", 2)]
    assert camvid.planned(options(data, tmp_path, arms="tsm,bare", seeds=2))[2:] == [("tsm", 1), ("bare", 1)]


def test_equal_compute_means_t_times_the_steps(data: Path, tmp_path: Path) -> None:
    plain, long = (camvid.arm_config(name, 0, options(data, tmp_path, steps=0)) for name in ("bare", "bare_long"))
    assert long.train_cfg.max_iters == camvid.T * plain.train_cfg.max_iters
    assert long.param_scheduler[1].end == long.train_cfg.max_iters
    assert plain.model == long.model
    assert plain.randomness["seed"] == 0
    assert plain.val_cfg is None


def made_up(work: Path, arm: str, seed: int, miou: float, T: int = 1) -> None:
    folder = work / f"pspnet_{arm}_{seed}"
    folder.mkdir(parents=True)
    classes = CamVidDataset.METAINFO["classes"]
    metrics = {"mIoU": miou, "aAcc": 70.0, **{f"IoU.{name}": miou + index for index, name in enumerate(classes)}}
    video = {} if T == 1 else {"genotype": "identity", "T": T, "fusion": {"name": "gsf"}}
    record = {"arm": arm, "seed": seed, "network": "pspnet", "scale": "cpu", "video": video, "metrics": metrics}
    record |= {"steps": 2, "images": 8, "frames": 8 * T, "parameters": 10, "train_seconds": 1.0, "peak_bytes": 2**20}
    record |= {"hardware": {"processor": "x"}}
    (folder / "result.json").write_text(json.dumps(record))


def test_the_summary_averages_over_seeds_and_says_how_many(tmp_path: Path) -> None:
    for seed, miou in enumerate((20.0, 22.0, 24.0)):
        made_up(tmp_path, "bare", seed, miou)
    made_up(tmp_path, "bare_long", 0, 30.0)
    made_up(tmp_path, "replica", 0, 21.0, T=3)
    payload = summary.summary(summary.gathered(Namespace(work=str(tmp_path), network="pspnet")))
    rows = {row["arm"]: row for row in payload["results"]}
    assert list(rows) == ["bare", "replica", "bare_long"]
    assert rows["bare"]["n"] == 3
    assert rows["bare"]["mIoU"] == 22
    assert rows["bare"]["half_width_95"] == pytest.approx(4.303 * 2 / math.sqrt(3), abs=0.01)
    assert rows["bare"]["by_seed"] == {"0": 20.0, "1": 22.0, "2": 24.0}
    assert rows["replica"]["half_width_95"] is None
    assert rows["replica"]["frames"] == 24
    assert payload["classes"][3] == {"class": "road", "bare": 25.0, "replica": 24.0, "bare_long": 33.0}
    assert len(payload["classes"]) == 11


def test_differences_are_paired_by_seed_and_one_seed_decides_nothing(tmp_path: Path) -> None:
    for seed, (plain, video) in enumerate(((20.0, 21.0), (24.0, 25.1), (30.0, 30.9))):
        made_up(tmp_path, "bare", seed, plain)
        made_up(tmp_path, "searched", seed, video, T=3)
    made_up(tmp_path, "bare_long", 2, 40.0)
    rows = summary.summary(summary.gathered(Namespace(work=str(tmp_path), network="pspnet")))["differences"]
    assert [(row["a"], row["b"], row["n"], row["a_is"]) for row in rows] == [
        ("searched", "bare", 3, "ahead"),
        ("searched", "bare_long", 1, "one seed"),
    ]
    assert rows[0]["difference"] == 1
    assert rows[1]["difference"] == -9.1
    assert rows[1]["half_width_95"] is None


def test_the_summary_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"no pspnet_ARM_SEED/result\.json in"):
        summary.gathered(Namespace(work=str(tmp_path), network="pspnet"))


def test_the_search_is_recorded_with_what_it_cost_and_decided(tmp_path: Path) -> None:
    genotype = Genotype.parse("rotate(10)").with_provenance({"dataset": "camvid", "seed": 4})
    genotype.save(tmp_path / "genotype.json")
    (tmp_path / "scores.json").write_text(json.dumps({"decidedness": {"edges": 10, "edges_decided": 6}}))
    (tmp_path / "run.json").write_text(json.dumps({"frames": 30, "seconds": 2.5, "state": "done"}))
    (tmp_path / "config.yaml").write_text("space: affine5\nT: 3\n")
    record = json.loads(json.dumps(summary.search_record(str(tmp_path))))
    assert record == {
        "genotype": "rotate(10)",
        "provenance": {"dataset": "camvid", "seed": 4},
        "decided": {"edges": 10, "edges_decided": 6},
        "settings": {"space": "affine5", "T": 3},
        "frames": 30,
        "seconds": 2.5,
    }


def test_the_figure_takes_frames_that_are_evenly_spaced(data: Path, tmp_path: Path) -> None:
    labels = sorted((data / "labels" / "test").iterdir())
    for arm in ("bare", "searched"):
        folder = tmp_path / f"pspnet_{arm}_0" / "predictions"
        folder.mkdir(parents=True)
        for label in labels:
            Image.fromarray(np.full(SIZE, 3 if arm == "bare" else 8, np.uint8)).save(folder / label.name)
    given = Namespace(work=str(tmp_path), data=str(data), network="pspnet", arms="bare,searched", frames=1)
    (row,) = summary.figure_rows(given)
    stored = np.asarray(Image.open(labels[1]))
    np.testing.assert_array_equal(row.label, np.where(stored == CAMVID_UNLABELLED, 255, stored))
    assert list(row.predictions) == ["plain segmentor", "searched clip, GSF"]
