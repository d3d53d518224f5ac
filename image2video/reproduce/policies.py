"""What augments an arm's training images: nothing, a stated policy, or one that is searched for in a fixed time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import nn

from image2video.data import DataSource
from image2video.experiments.genotypes import Chosen
from image2video.protocols import Progress
from image2video.reproduce.book import kept_once
from image2video.reproduce.spec import Cell, Setting
from image2video.training import search_augmentation
from image2video.version import __version__

NamedProgress = Callable[[str], Progress | None]
"""The progress of a stage by its name; None where nobody looks."""


@dataclass(frozen=True)
class Policy:
    """The text of a policy, None for none, and the seconds that finding it took."""

    text: str | None = None
    seconds: float = 0.0


def found_record(chosen: Chosen | None, policy: Policy) -> dict[str, Any]:
    """The genotype and the policy of a run, and the minutes of their searches, as JSON values."""
    seconds = policy.seconds if chosen is None else chosen.seconds + policy.seconds
    return {
        "genotype": None if chosen is None else str(chosen.genotype),
        "origin": None if chosen is None else chosen.origin,
        "policy": policy.text,
        "search_minutes": seconds / 60,
    }


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
    """The policy of an arm; `search:FAMILY` is the policy of that family that trains `build()` best.

    Policies are compared on held-out images. The search takes `setting.augment_minutes`, with trainings of half the
    setting's epochs. It is kept in `folder`, goes on where it was killed, and never runs twice.

    Raises:
        InputError: no held-out images.
        UnsupportedError: several processes.
        StateError: no training was done in time.
    """
    found = stated_policy(arm)
    if found is not None:
        return found
    family = str(arm.augment).partition(":")[2]
    short = max(1, setting.epochs // 2)
    told: list[Any] = [family, setting.data, setting.model, setting.image_size, setting.train_images, setting.holdout]
    told += [setting.batch_size, setting.lr, dict(setting.recipe), setting.seed, short, setting.augment_minutes]
    told += [arm.variant, __version__]

    def find(out: Path) -> dict[str, Any]:
        result = search_augmentation(
            family,
            data,
            lambda policy: build(),
            setting.training(short, setting.seed, finetune=False),
            minutes=setting.augment_minutes,
            reference=False,
            seed=setting.seed,
            out=out,
            resume=True,
            accelerator=accelerator,
            progress=progress,
        )
        return {"policy": str(result.best), "seconds": result.seconds}

    record, _ = kept_once(folder, f"{family}-{setting.data}", told, find, accelerator)
    return Policy(record["policy"], record["seconds"])
