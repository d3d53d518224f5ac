"""The search for an augmentation policy: train with each policy of a family, until the minutes are over.

Table 7 of Casarin et al., CVPR 2024, gives every method the same time to search. RandAugment is searched over its grid
of ops and magnitudes, the others over what little they leave open.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from image2video.data import Augmentation, seeded_generator
from image2video.data.augment import FAMILIES
from image2video.errors import InputError, StateError
from image2video.protocols import Progress
from image2video.reproduce.spec import Setting
from image2video.runs.folders import atomic_write_json, read_record

Score = float | list[float]
"""The higher the better; the further numbers of a list break ties."""
T = TypeVar("T")


class OutOfTimeError(Exception):
    """Ends a training that is not done in time."""


def find_policy(
    family: str,
    setting: Setting,
    told: list[Any],
    folder: Path,
    accelerator: Accelerator,
    *,
    check: Callable[[Augmentation], object],
    score: Callable[[Augmentation, Progress], Score],
    progress: Progress | None = None,
) -> tuple[str, float]:
    """The policy of a family with the highest held-out score, and the seconds that finding it took.

    The search takes `setting.augment_minutes`. It is kept in `folder`, goes on where it was killed, and never runs
    twice. Policies are tried in an order that `setting.seed` draws. The time is checked after every training step: a
    training that is not done in time does not count, one that is done is still scored. With several processes, the
    clock of the main one counts.

    told: what decides the search, as JSON values; searches that are told alike are one.
    check: raises where a policy cannot be used; called with all of them before the first training.
    score: trains a fresh network with the policy and scores it on held-out images. It calls the progress that it is
        given with the stage `train` after every step, on every process; that raises where the time is over.

    Raises `InputError` without held-out images and for an unknown family, `StateError` where no training was done in
    time or a score is no number.
    """
    key = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]
    book = _Book(folder / f"{family}-{setting.data}-{key}.json", told, accelerator)
    if book.best is None:
        if setting.holdout == 0:
            raise InputError("policies are compared on held-out images; set holdout above 0")
        policies = policies_in_order(family, setting.seed)
        for policy in policies:
            check(policy)
        _try(policies, book, setting.augment_minutes, accelerator, score, progress)
        book.finish(family, setting.augment_minutes)
    assert book.best is not None
    return book.best, book.seconds


def policies_in_order(family: str, seed: int) -> list[Augmentation]:
    """The policies of a family's grid in the order drawn by `seed`; raises `InputError` for an unknown family."""
    if family not in FAMILIES:
        raise InputError(f"unknown family of augmentations {family!r}; known: {', '.join(FAMILIES)}")
    grid = FAMILIES[family].grid()
    return [grid[i] for i in torch.randperm(len(grid), generator=seeded_generator(seed)).tolist()]


def _try(
    policies: list[Augmentation],
    book: _Book,
    minutes: float,
    accelerator: Accelerator,
    score: Callable[[Augmentation, Progress], Score],
    progress: Progress | None,
) -> None:
    """Give every policy without a score one, in order, until the minutes are over."""

    def clock() -> float:
        return _agreed(accelerator, time.monotonic())

    begun = clock()
    end = begun + 60 * minutes - book.seconds
    watched = _watched(progress, clock, end)
    for policy in policies:
        if str(policy) in book.scores:
            continue
        if clock() >= end:
            return
        found: Score | None = None
        with contextlib.suppress(OutOfTimeError):
            found = _agreed(accelerator, score(policy, watched))
        now = clock()
        book.add(policy, found, now - begun)
        begun = now
        if found is None:
            return
        if progress is not None:
            progress("policies", len(book.scores), len(policies))


def _watched(progress: Progress | None, clock: Callable[[], float], end: float) -> Progress:
    """A progress that raises `OutOfTimeError` at time `end`, after any step of the stage `train` but the last."""

    def watch(stage: str, done: int, total: int, **figures: float) -> None:
        if progress is not None:
            progress(stage, done, total, **figures)
        if stage == "train" and done < total and clock() >= end:
            raise OutOfTimeError

    return watch


class _Book:
    """The scores of a search in one file, written by the main process and known to all."""

    def __init__(self, path: Path, told: list[Any], accelerator: Accelerator) -> None:
        self._path, self._told, self._writes = path, told, accelerator.is_main_process
        record = _agreed(accelerator, read_record(path) if path.is_file() else {})
        self.scores: dict[str, Score] = record.get("scores", {})
        self.seconds: float = record.get("seconds", 0.0)
        self.best: str | None = record.get("policy")

    def add(self, policy: Augmentation, score: Score | None, seconds: float) -> None:
        """Keep a policy's score (None: its training was not done in time) and the time that it took."""
        self.seconds += seconds
        if score is not None:
            first = score[0] if isinstance(score, list) else score
            if not math.isfinite(first):
                raise StateError(f"the held-out score of {policy} is {first}; the training with it has failed")
            self.scores[str(policy)] = score
        self._write()

    def finish(self, family: str, minutes: float) -> None:
        """Keep the best policy as the result; of equal ones the first by its text."""
        if not self.scores:
            raise StateError(
                f"no policy of {family!r} was done within {minutes:g} minutes; allow for more with augment_minutes, or "
                "train for less"
            )
        self.best = max(sorted(self.scores), key=lambda text: self.scores[text])
        self._write()

    def _write(self) -> None:
        if self._writes:
            record = {"policy": self.best, "seconds": self.seconds, "scores": self.scores, "settings": self._told}
            atomic_write_json(self._path, record)


def _agreed(accelerator: Accelerator, value: T) -> T:
    """The main process's value."""
    if accelerator.num_processes > 1:
        (value,) = broadcast_object_list([value])
    return value
