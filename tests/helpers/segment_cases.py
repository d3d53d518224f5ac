"""A small folder of scenes, and the settings and configs of arms of segmentation that train on it in a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("mmseg")

import mmseg_cases  # noqa: F401 (silences mmengine's log)

from image2video import Genotype
from image2video.reproduce import Cell, Setting
from image2video.reproduce.genotypes import Chosen
from image2video.reproduce.miniatures import scene
from image2video.reproduce.policies import Policy
from image2video.reproduce.segment_config import arm_config, plain_config
from image2video.training import make_accelerator

CONFIG = "digit_scenes/fcn_small_1xb8_digit_scenes-48x48.py"
OPTIONS = {"train_dataloader.batch_size": 2, "test_dataloader.dataset.indices": 4}
SETTING: dict[str, Any] = {
    **{"data": "digit_scenes", "config": CONFIG, "options": OPTIONS, "steps": 2, "train_images": 16, "holdout": 0.25},
    **{"T": 2, "seeds": 1, "search": {"epochs": 1, "tune_epochs": 0, "lr": 0.1, "tau_lr": 0.003}},
}
BARE = Cell("bare", "bare network")
LONG = Cell("bare_long", "bare network, T times the epochs", equal_compute=True)
MOVING = Cell("moving", "translation, GSF", genotype="translate_x(0.1)", fusion="gsf")
LEARNED = Cell("learned", "learned averaging", genotype="learned", fusion="none", learned=True)
MOVED = Chosen(Genotype.parse("translate_x(0.1)"), "stated")


def make_scenes(folder: Path, *, train: int = 20, test: int = 6) -> Path:
    """`images/{train,test}/N.png` and `labels/…` below a folder, which is returned."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for number in range(count):
            image, label = scene(rng, (48, 48), 11, 255)
            Image.fromarray(image).save(folder / "images" / split / f"{number:04d}.png")
            Image.fromarray(label).save(folder / "labels" / split / f"{number:04d}.png")
    return folder


def setting(**changes: Any) -> Setting:
    """The small setting, with other values for some of its fields."""
    return Setting(**{**SETTING, **changes})


def made(arm: Cell, root: Path, work_dir: Path, *, seed: int = 0, **changes: Any) -> Any:
    """The config that an arm is trained with."""
    chosen = None if arm.fusion is None or arm.learned else MOVED
    own = setting(**changes)
    return arm_config(arm, own, seed, plain_config(own, root), chosen, Policy(arm.augment), work_dir=work_dir)


def accelerator() -> Any:
    """One process on the CPU."""
    return make_accelerator("cpu")
