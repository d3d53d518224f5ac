"""The sweep over mmsegmentation's configs: it covers every folder, its page is the one of its results, and it runs."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("mmseg")

from mmengine.config import ConfigDict
from mmseg.models.decode_heads import VPDDepthHead
from mmseg_cases import build, tiny_config

from image2video.functional import UnsupportedError
from image2video.integrations.openmmlab.heads import check_head

ROOT = Path(__file__).parents[2]
SMALL = "fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024.py"
RESULTS = ROOT / "benchmarks" / "results" / "mmseg_zoo.json"


def test_every_folder_of_configs_has_its_row(load):
    names = load("mmseg_models").folders()
    assert len(names) > 50
    rows = {row["folder"]: row for row in json.loads(RESULTS.read_text())["results"]}
    assert sorted(rows) == names
    chosen = json.loads((ROOT / "benchmarks" / "mmseg_zoo_configs.json").read_text())["folders"]
    assert {name: row["config"] for name, row in rows.items()} == {n: c["config"] for n, c in chosen.items()}


def test_what_does_not_pass_says_why():
    rows = json.loads(RESULTS.read_text())["results"]
    failed = {row["folder"]: row for row in rows if row["status"] != "passes"}
    assert set(failed) == {"psanet", "san", "vpd"}  # compiled operators, another segmentor, depth
    assert "psamask" in failed["psanet"]["reason"]
    assert "SideAdapterCLIPHead" in failed["san"]["reason"]
    assert "VPD" in failed["vpd"]["reason"]


def test_passing_rows_hold_what_was_checked():
    rows = [row for row in json.loads(RESULTS.read_text())["results"] if row["status"] == "passes"]
    for row in rows:
        for fusion in ("tsm", "gsf"):
            assert row[fusion]["sites"] >= 4, row["folder"]
            assert row[fusion]["mixed"] > 0
            assert row[fusion]["leaked"] == 0
        assert row["gsf"]["identity_error"] <= 1e-4
        assert row["gsf"]["fusion_parameters"] > 0


def test_the_page_is_made_of_the_results(load):
    page = load("mmseg_zoo").MmsegZoo().page(json.loads(RESULTS.read_text()))
    assert (ROOT / "docs" / "mmseg_zoo.md").read_text(encoding="utf-8") == page
    table = page.split("## Sites")[1]
    widths = {line.count("|") for line in table.splitlines() if line.startswith("|")}
    assert widths == {13}


def test_models_are_read_without_pretrained_weights_and_made_for_small_images(load):
    models = load("mmseg_models")
    read = models.read("beit/beit-base_upernet_8xb2-160k_ade20k-640x640.py")
    assert read.pretrained is None
    small = models.shrunk(read, (64, 96))
    assert small.backbone.img_size == small.data_preprocessor.size == (64, 96)
    assert small.test_cfg == {"mode": "slide", "crop_size": (64, 96), "stride": (42, 64)}
    assert read.backbone.img_size == (640, 640)
    mask = models.read("maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512.py")
    assert mask.backbone.init_cfg is None
    assert models.packages_of(mask) == ["mmdet"]
    texts = [p.read_text() for p in models.CONFIGS.rglob("*.py")]
    assert any(re.search(r"type='mmpretrain\.", text) for text in texts)


def test_operators_of_the_stand_in_raise_when_they_are_called(load, monkeypatch):
    models = load("mmseg_models")
    if "mmcv._ext" in sys.modules or importlib.util.find_spec("mmcv._ext"):
        pytest.skip("mmcv has its compiled operators")
    monkeypatch.setattr(models.mmcv, "_ext", None, raising=False)
    before = set(sys.modules)
    models.stand_in_for_compiled_operators()
    try:
        extension = importlib.import_module("mmcv._ext")
        with pytest.raises(RuntimeError, match="without its compiled operators: psamask_forward"):
            extension.psamask_forward(torch.zeros(1))
    finally:
        for name in set(sys.modules) - before:
            if name.startswith("mmcv."):
                del sys.modules[name]


@pytest.mark.filterwarnings("ignore:the checkpoint is of a plain segmentor")
def test_a_small_config_passes_every_check(load):
    record = load("mmseg_zoo_check").check(SMALL, 2, (64, 64))
    assert record["status"] == "passes", record
    assert (record["backbone"], record["head"]) == ("FastSCNN", "DepthwiseSeparableFCNHead")
    assert record["tsm"]["sites"] == record["gsf"]["sites"] == 6


@pytest.mark.filterwarnings("ignore:the checkpoint is of a plain segmentor")
def test_a_failed_check_is_the_result(load, monkeypatch):
    check = load("mmseg_zoo_check")
    monkeypatch.setattr(check, "CLOSE", -1.0)
    record = check.check(SMALL, 2, (64, 64))
    assert (record["status"], record["error"]) == ("fails", "AssertionError")
    assert "differs from the bare model" in record["reason"]


def test_a_model_that_reads_the_images_in_its_head_is_refused_by_name():
    config = tiny_config(video={"T": 2})
    config.image_encoder = ConfigDict(type="VisionTransformer")
    config.decode_head = ConfigDict(type="SideAdapterCLIPHead")
    with pytest.raises(UnsupportedError, match=r"image_encoder \(VisionTransformer\).*\(SideAdapterCLIPHead\)"):
        build(config)


def test_a_head_that_predicts_depth_is_refused_by_name():
    with pytest.raises(UnsupportedError, match="VPDDepthHead predicts depth"):
        check_head(VPDDepthHead.__new__(VPDDepthHead))
