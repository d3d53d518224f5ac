"""What augments an arm's training images: nothing, a stated policy, or one that is searched for in a fixed time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn

from image2video.data import Augmentation, DataSource
from image2video.errors import UnsupportedError
from image2video.protocols import Progress
from image2video.reproduce.augment_search import Score, find_policy
from image2video.reproduce.spec import Cell, Setting
from image2video.training.engine import Engine
from image2video.version import RUNS_SINCE


@dataclass(frozen=True)
class Policy:
    """The text of a policy, None for none, and the seconds that finding it took."""

    text: str | None = None
    seconds: float = 0.0


def searched_family(arm: Cell) -> str | None:
    """The family that an arm's `augment` asks to search, as `search:FAMILY`; None where it states a policy."""
    word, _, family = (arm.augment or "").partition(":")
    return family if word == "search" else None


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

    Every training of the search has half the setting's epochs. Seeds the global generators before each. Raises what
    `find_policy` does, and `UnsupportedError` where the search would have to run in several processes.
    """
    family = searched_family(arm)
    if family is None:
        return Policy(arm.augment)
    short = max(1, setting.epochs // 2)
    told: list[Any] = [family, setting.data, setting.model, setting.image_size, setting.train_images, setting.holdout]
    told += [setting.batch_size, setting.lr, dict(setting.recipe), setting.seed, short, setting.augment_minutes]
    told += [arm.variant, RUNS_SINCE]
    config = setting.training(short, setting.seed, finetune=False)

    def check(policy: Augmentation) -> None:
        if accelerator.num_processes > 1:
            raise UnsupportedError(
                f"a search over policies runs in one process, got {accelerator.num_processes}; start it without "
                "accelerate launch"
            )
        policy.check_channels(data.input_size[0])
        policy.build(data.mean, data.std)
        data.with_policy(policy)

    def score(policy: Augmentation, watched: Progress) -> Score:
        assert data.holdout is not None  # the setting holds images out
        set_seed(config.seed)
        engine = Engine(build(), data.with_policy(policy), config, accelerator, watched)
        for epoch in range(config.epochs):
            engine.train_epoch(epoch)
        metrics = engine.evaluate(data.holdout, "holdout")
        return [metrics.top1, -metrics.loss]

    found = find_policy(family, setting, told, folder, accelerator, check=check, score=score, progress=progress)
    return Policy(*found)
