"""Runs of mmsegmentation's stock tools on a miniature data set, with the example's config made small."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

pytest.importorskip("mmseg")

import mmseg
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmseg.visualization import SegLocalVisualizer

EXAMPLES = Path(__file__).parents[2] / "examples" / "mmsegmentation"
EXAMPLE = EXAMPLES / "pspnet_r18_video.py"
TOOLS = Path(mmseg.__path__[0]) / ".mim" / "tools"

_SMALL = """
_base_ = [{base!r}]
crop_size = (32, 48)
norm_cfg = dict(type="BN", requires_grad=True)
model = dict(
    data_preprocessor=dict(size=crop_size),
    pretrained=None,
    backbone={backbone},
    decode_head=dict(in_channels=64, channels=8, pool_scales=(1, 2), norm_cfg=norm_cfg),
    auxiliary_head=dict(in_channels=32, channels=8, norm_cfg=norm_cfg),
)
data_root = {data!r}
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(64, 48), ratio_range=(0.8, 1.5), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(64, 48), keep_ratio=True),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [dict(type="Resize", scale_factor=ratio, keep_ratio=True) for ratio in (0.75, 1.0)],
            [dict(type="RandomFlip", prob=prob, direction="horizontal") for prob in (0.0, 1.0)],
            [dict(type="LoadAnnotations")],
            [dict(type="PackSegInputs")],
        ],
    ),
]
workers = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(**workers, dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(**workers, dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(max_iters={iterations}, val_interval={every})
param_scheduler = [dict(type="PolyLR", eta_min=1e-4, power=0.9, begin=0, end=10, by_epoch=False)]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval={every}))
randomness = dict(seed=0)
log_level = "WARNING"
"""


def small_config(
    folder: Path,
    data: Path,
    *,
    iterations: int = 2,
    every: int = 2,
    base: Path = EXAMPLE,
    wrapped: bool = False,
    more: str = "",
) -> Path:
    """A config that makes `base` small: 8 channels, crops of 32 × 48, `iterations` steps, a checkpoint `every` few.

    `data` is a Cityscapes miniature; `wrapped` tells that `base` has its backbone in a VideoWrap; `more` is appended to
    the file, whose path is returned.
    """
    path = folder / "small.py"
    backbone = "dict(base_channels=8, stem_channels=8, norm_cfg=norm_cfg)"
    backbone = f"dict(backbone={backbone})" if wrapped else backbone
    values = {"base": str(base), "data": str(data), "iterations": iterations, "every": every, "backbone": backbone}
    path.write_text(_SMALL.format(**values) + more)
    return path


def run_tool(monkeypatch: pytest.MonkeyPatch, tool: str, *arguments: object) -> None:
    """Run `tools/{tool}.py` in this process, as its command line would."""
    forget_runs()
    monkeypatch.setattr(sys, "argv", [f"{tool}.py", *map(str, arguments)])
    before = dict(os.environ)
    try:
        runpy.run_path(str(TOOLS / f"{tool}.py"), run_name="__main__")
    finally:
        # The tools leave LOCAL_RANK behind, by which accelerate takes this process for one of several.
        os.environ.clear()
        os.environ.update(before)


def forget_runs() -> None:
    """Drop what mmengine keeps of earlier runs of this process: its visualizer and its log, by name and second."""
    for logger in MMLogger._instance_dict.values():
        for handler in logger.handlers:
            handler.close()
    for kept in (SegLocalVisualizer, MessageHub, MMLogger):
        kept._instance_dict.clear()


def run_python(arguments: Sequence[object], *, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python ARGUMENTS` in `folder` in a process of its own, on one thread; raises with what it wrote."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **environment}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done


def read_checkpoint(path: Path) -> dict:
    """A checkpoint of mmengine; its weights and what the hooks put there need no pickled code, its log does."""
    return torch.load(path, map_location="cpu", weights_only=False)


def load_config(path: Path, **options: object) -> Config:
    """A config file with options merged in."""
    config = Config.fromfile(str(path))
    config.merge_from_dict(options)
    return config
