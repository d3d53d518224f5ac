"""The loop of every search over policies: one training after the other, until the time is over."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol, TypeVar

import torch

from image2video.data import Augmentation, seeded_generator
from image2video.data.augment import FAMILIES
from image2video.errors import InputError
from image2video.protocols import Progress
from image2video.reproduce.augment_result import NO_POLICY

Clock = Callable[[], float]
"""Seconds that only grow."""
S_contra = TypeVar("S_contra", contravariant=True)
S = TypeVar("S")


class OutOfTimeError(Exception):
    """Ends a training that is not done in time."""


class ScoreBook(Protocol[S_contra]):
    """What keeps the scores of a search, and its time over all resumed parts."""

    minutes: float
    seconds: float

    @property
    def scores(self) -> Collection[Any]:
        """The names of the policies that have a score."""
        ...

    def add(self, score: S_contra | None, seconds: float) -> None:
        """Adds a policy's score (None: it was not done in time) and the time that it took."""
        ...


def policies_in_order(
    family: str, grid: Sequence[Augmentation | str] | None = None, seed: int = 0
) -> list[Augmentation]:
    """The policies of a grid (None: the family's own) in the order drawn by `seed`.

    Raises `InputError` for an unknown family, and for a grid that is empty, repeats itself or holds another family.
    """
    if family not in FAMILIES:
        raise InputError(f"unknown family of augmentations {family!r}; known: {', '.join(FAMILIES)}")
    if grid is None:
        listed: list[Augmentation] = list(FAMILIES[family].grid())
    else:
        listed = [policy if isinstance(policy, Augmentation) else Augmentation.parse(policy) for policy in grid]
    if not listed:
        raise InputError("the grid is empty; give at least one policy, or None for the family's own")
    for policy in listed:
        if policy.family != family:
            raise InputError(f"the grid holds {policy}, which is not of the family {family!r}")
        if listed.count(policy) > 1:
            raise InputError(f"the grid holds {policy} more than once; each may stand there once")
    return [listed[i] for i in torch.randperm(len(listed), generator=seeded_generator(seed)).tolist()]


def watched(progress: Progress | None, clock: Clock, end: float) -> Progress:
    """A progress that raises `OutOfTimeError` after a step of the stage `train`, but the last, at time `end`."""

    def watch(stage: str, done: int, total: int, **figures: float) -> None:
        if progress is not None:
            progress(stage, done, total, **figures)
        if stage == "train" and done < total and clock() >= end:
            raise OutOfTimeError

    return watch


def try_policies(
    todo: Sequence[Augmentation | None],
    book: ScoreBook[S],
    score: Callable[[Augmentation | None, float], S],
    clock: Clock,
    progress: Progress | None = None,
) -> None:
    """Give every policy without a score one, in order, until the minutes of `book` are over.

    score: policy and end of the time → its score; raises `OutOfTimeError` where the training is not done by then.
    progress: called with the stage `policies` after every policy.
    """
    start = last = clock()
    end = start + 60 * book.minutes - book.seconds
    for policy in todo:
        if policy_name(policy) in book.scores:
            continue
        if clock() >= end:
            return
        try:
            found: S | None = score(policy, end)
        except OutOfTimeError:
            found = None
        now = clock()
        book.add(found, now - last)
        last = now
        if found is None:
            return
        if progress is not None:
            progress("policies", len(book.scores), len(todo))


def policy_name(policy: Augmentation | None) -> str:
    """The text of a policy, that of none included."""
    return NO_POLICY if policy is None else str(policy)
