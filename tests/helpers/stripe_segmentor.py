"""A segmentor whose answer is known: it tells upright stripes from level ones, and tilted ones not at all.

A config that imports this module finds `StripeBackbone` in mmsegmentation's registry.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

pytest.importorskip("mmseg")

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS

SIZE = (40, 56)
TILT = 45
CLASSES = ("upright", "level")
META = {"classes": CLASSES, "palette": [[200, 80, 0], [0, 80, 200]]}
SPACE = "name: tilts\nops: {rotate: [-45, 45], flip_x: null, translate_x: 0.05, identity: null}\nnodes: 2\n"
_PERIOD = 6


@MODELS.register_module(force=True)
class StripeBackbone(nn.Module):
    """Images -> how much they change along x and along y, at half their size."""

    def __init__(self) -> None:
        super().__init__()
        self.change = nn.Conv2d(3, 4, 3, padding=1)
        self.smooth = nn.Conv2d(4, 2, 7, padding=3, stride=2)

    def init_weights(self) -> None:
        """Nothing: the weights come from a checkpoint."""

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """One map of two channels."""
        return (self.smooth(self.change(images).relu()),)


def config(data: Path, **loaders: Any) -> Config:
    """The config; `val` images are tilted, `train` and `test` images are upright. `loaders` replaces parts of it."""
    pipeline = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}]
    head = {
        "type": "FCNHead",
        "in_channels": 2,
        "in_index": 0,
        "channels": 2,
        "num_convs": 0,
        "concat_input": False,
        "num_classes": 2,
        "dropout_ratio": 0.0,
        "loss_decode": {"type": "CrossEntropyLoss"},
    }
    model = {
        "type": "EncoderDecoder",
        "data_preprocessor": {
            "type": "SegDataPreProcessor",
            "mean": [128.0] * 3,
            "std": [64.0] * 3,
            "bgr_to_rgb": True,
            "size": SIZE,
            "seg_pad_val": 255,
        },
        "backbone": {"type": "StripeBackbone"},
        "decode_head": head,
        "train_cfg": {},
        "test_cfg": {"mode": "whole"},
    }
    read = {
        f"{split}_dataloader": {
            "batch_size": 1,
            "num_workers": 0,
            "sampler": {"type": "DefaultSampler", "shuffle": False},
            "dataset": {
                "type": "BaseSegDataset",
                "img_suffix": ".png",
                "metainfo": META,
                "data_root": str(data),
                "data_prefix": {"img_path": f"images/{split}", "seg_map_path": f"labels/{split}"},
                "pipeline": pipeline,
                "serialize_data": False,
            },
        }
        for split in ("train", "val", "test")
    }
    found = {
        "default_scope": "mmseg",
        "custom_imports": {"imports": ["stripe_segmentor"]},
        "model": model,
        **read,
        "val_evaluator": {"type": "IoUMetric", "iou_metrics": ["mIoU"]},
        "val_cfg": {"type": "ValLoop"},
        **loaders,
    }
    return Config({name: value for name, value in found.items() if value is not None})


def made(folder: Path, *, val: int = 45, test: int = 36, train: int = 2) -> tuple[str, str]:
    """The paths of a config and of a checkpoint below a folder, with their images."""
    for number, (split, count) in enumerate((("train", train), ("val", val), ("test", test))):
        write_images(folder, split, count, tilt=TILT if split == "val" else 0, seed=number)
    config(folder).dump(folder / "stripes.py")
    return str(folder / "stripes.py"), checkpoint(folder)


def write_images(folder: Path, split: str, count: int, *, tilt: float, seed: int = 0, classes: int = 2) -> None:
    """Images of four blocks of stripes each, which stand `tilt` degrees counter-clockwise of where they should."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    for kind in ("images", "labels"):
        (folder / kind / split).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        blocks = rng.integers(0, classes, (2, 2))
        label = np.kron(blocks, np.ones((SIZE[0] // 2, SIZE[1] // 2), dtype=int)).astype(np.uint8)
        # Level stripes change along y. As seen on the screen y points down, so a turn to the left is one of -tilt.
        angle = np.radians(90.0 * label - tilt)
        along = np.cos(angle) * x + np.sin(angle) * y
        waves = 128 + 70 * np.sin(2 * np.pi * along / _PERIOD + rng.uniform(0, 6)) + rng.normal(0, 12, SIZE)
        label[:, SIZE[1] // 2 - 1 : SIZE[1] // 2 + 1] = 255
        pixels = np.repeat(waves.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
        Image.fromarray(pixels).save(folder / "images" / split / f"{number:03}.png")
        Image.fromarray(label).save(folder / "labels" / split / f"{number:03}.png")


def segmentor() -> Any:
    """The segmentor with its weights, by hand."""
    with DefaultScope.overwrite_default_scope("mmseg"):
        model = MODELS.build(config(Path("nowhere")).model)
    with torch.no_grad():
        backbone = model.backbone
        for tensor in model.parameters():
            tensor.zero_()
        step = torch.tensor([-1.0, 0.0, 1.0]) / 6
        # Up and down along x, up and down along y.
        backbone.change.weight[0, :, 1], backbone.change.weight[1, :, 1] = step, -step
        backbone.change.weight[2, :, :, 1], backbone.change.weight[3, :, :, 1] = step, -step
        backbone.smooth.weight[0, :2], backbone.smooth.weight[1, 2:] = 1 / 49, 1 / 49
        model.decode_head.conv_seg.weight.copy_(20 * torch.eye(2)[..., None, None])
    return model.eval()


def checkpoint(folder: Path) -> str:
    """The path of the weights as mmengine writes them."""
    path = folder / "stripes.pth"
    torch.save({"meta": {"iter": 1, "dataset_meta": META}, "state_dict": segmentor().state_dict()}, path)
    return str(path)
