"""What augments an arm's training images: nothing, a stated policy, or one that is searched for in a fixed time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import nn

from image2video.data import DataSource
from image2video.protocols import Progress
from image2video.reproduce.spec import Cell, Setting
from image2video.runs.folders import atomic_write_json, read_json
from image2video.training import search_augmentation
from image2video.version import __version__


@dataclass(frozen=True)
class Policy:
    """The text of a policy, None for none, and the seconds that finding it took."""

    text: str | None = None
    seconds: float = 0.0


def stated_policy(arm: Cell) -> Policy | None:
    """What an arm's `augment` states; None where it asks for a search: `search:FAMILY`."""
    return None if (arm.augment or "").partition(":")[0] == "search" else Policy(arm.augment)


def choose_policy(
    arm: Cell,
    setting: Setting,
    data: DataSource,
    folder: Path,
    accelerator: Accelerator,
    build: Callable[[], nn.Module],
    progress: Progress | None = None,
) -> Policy:
    """The policy of an arm; `search:FAMILY` is the one of that family which trains `build()` best on held-out images.

    The search takes `setting.augment_minutes`, with trainings of half the setting's epochs; it is kept in `folder`,
    goes on where it was killed, and never runs twice. Raises `InputError` without held-out images, `UnsupportedError`
    where it would have to run in several processes, `StateError` where no training was done in time.
    """
    found = stated_policy(arm)
    if found is not None:
        return found
    family = str(arm.augment).partition(":")[2]
    short = max(1, setting.epochs // 2)
    told: list[Any] = [family, setting.data, setting.model, setting.image_size, setting.train_images, setting.holdout]
    told += [setting.batch_size, setting.lr, dict(setting.recipe), setting.seed, short, setting.augment_minutes]
    told += [arm.variant, __version__]
    key = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]
    record_file = folder / f"{family}-{setting.data}-{key}.json"
    if not record_file.is_file():
        result = search_augmentation(
            family,
            data,
            lambda policy: build(),
            setting.training(short, setting.seed, finetune=False),
            minutes=setting.augment_minutes,
            reference=False,
            seed=setting.seed,
            out=folder / f"{family}-{setting.data}-{key}",
            resume=True,
            accelerator=accelerator,
            progress=progress,
        )
        atomic_write_json(record_file, {"policy": str(result.best), "seconds": result.seconds, "settings": told})
    record = read_json(record_file)
    return Policy(record["policy"], record["seconds"])
