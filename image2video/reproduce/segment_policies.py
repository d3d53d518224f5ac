"""The augmentation policy of a segmentation arm: stated, or searched for in a fixed time."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from image2video.data import Augmentation
from image2video.errors import InputError, StateError
from image2video.protocols import Progress
from image2video.reproduce.augment_loop import policies_in_order, try_policies, watched
from image2video.reproduce.policies import Policy, stated_policy
from image2video.reproduce.segment_augment import AugmentationPolicy
from image2video.reproduce.spec import Cell, Setting
from image2video.runs.folders import atomic_write_json, read_json
from image2video.version import __version__

T = TypeVar("T")


def choose_segmentation_policy(
    arm: Cell,
    setting: Setting,
    folder: Path,
    accelerator: Accelerator,
    told: Any,
    score: Callable[[str, Progress], float],
    progress: Progress | None = None,
) -> Policy:
    """The policy of an arm; `search:FAMILY` is the one of that family's grid with the highest score.

    The search takes `setting.augment_minutes`; it is kept in `folder`, goes on where it was killed, and never runs
    twice. A training that is not done in time does not count; one that is done is still scored. With several processes,
    the clock of the main one counts.

    told: what decides the search beside its family and time, as JSON values.
    score: policy → held-out score of a fresh network that is trained with it for a while, the higher the better. It
        calls what it is given with the stage `train` after every step, on every process; that raises where the time is
        over.

    Raises `InputError` without held-out images and for an unknown family, `StateError` where no training was done in
    time or a score is no number.
    """
    found = stated_policy(arm)
    if found is not None:
        return found
    family = str(arm.augment).partition(":")[2]
    if setting.holdout == 0:
        raise InputError("policies are compared on held-out images; set holdout above 0")
    settings = [family, told, setting.augment_minutes, setting.seed, setting.holdout, __version__]
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    book = _Book(folder / f"{family}-{setting.data}-{key}.json", settings, setting.augment_minutes, accelerator)
    if book.best is None:
        _search(family, setting, book, accelerator, score, progress)
    assert book.best is not None
    return Policy(book.best, book.seconds)


def _search(
    family: str,
    setting: Setting,
    book: _Book,
    accelerator: Accelerator,
    score: Callable[[str, Progress], float],
    progress: Progress | None,
) -> None:
    policies = policies_in_order(family, seed=setting.seed)
    for policy in policies:  # before the first training, whose time would be lost
        AugmentationPolicy(str(policy))

    def clock() -> float:
        return _agreed(accelerator, time.monotonic())

    def scored(policy: Augmentation | None, end: float) -> tuple[str, float]:
        value = _agreed(accelerator, float(score(str(policy), watched(progress, clock, end))))
        if not math.isfinite(value):
            raise StateError(f"the held-out score of {policy} is {value}; the training with it has failed")
        return str(policy), value

    try_policies(policies, book, scored, clock, progress)
    if not book.scores:
        raise StateError(
            f"none of the {len(policies)} policies of {family!r} was done within {setting.augment_minutes:g} minutes; "
            "allow for more with augment_minutes, or train for fewer steps"
        )
    book.finish()


class _Book:
    """The scores of a search in one file, written by the main process and known to all."""

    def __init__(self, path: Path, settings: list[Any], minutes: float, accelerator: Accelerator) -> None:
        self._path, self._settings, self._writes = path, settings, accelerator.is_main_process
        self.minutes = minutes
        record = _agreed(accelerator, read_json(path) if path.is_file() else {})
        self.scores: dict[str, float] = record.get("scores", {})
        self.seconds: float = record.get("seconds", 0.0)
        self.best: str | None = record.get("policy")

    def add(self, score: tuple[str, float] | None, seconds: float) -> None:
        self.seconds += seconds
        if score is not None:
            self.scores[score[0]] = score[1]
        self._write()

    def finish(self) -> None:
        """Keep the best policy as the result; the order of the texts breaks ties."""
        self.best = min(self.scores, key=lambda text: (-self.scores[text], text))
        self._write()

    def _write(self) -> None:
        if self._writes:
            told = {"policy": self.best, "seconds": self.seconds, "scores": self.scores, "settings": self._settings}
            atomic_write_json(self._path, told)


def _agreed(accelerator: Accelerator, value: T) -> T:
    """The main process's value."""
    if accelerator.num_processes > 1:
        (value,) = broadcast_object_list([value])
    return value
