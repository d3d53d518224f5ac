"""Successive halving: many chains on few images, then fewer chains on more."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from image2video.protocols import Progress
from image2video.search.rank.clip_candidate import ClipCandidate
from image2video.search.rank.pool import HeldOut
from image2video.search.rank.ranking import Outcome, order_of
from image2video.search.score.measure import score_variants
from image2video.search.score.scores import Scores
from image2video.search.score.task import Task

_FINALISTS = 8


class Predictor(Protocol):
    """What predicts images under many clips: `AveragedFrames`, `SharedWeights`, and others at places inside."""

    @property
    def frames(self) -> int:
        """How many frames it has predicted."""
        ...

    def predictions(self, images: Tensor, clips: Sequence[ClipCandidate]) -> Iterable[Any]:
        """The task's predictions of images `(B, C, H, W)`, `(B, …)` per clip; maps may come one by one."""
        ...


@dataclass(frozen=True)
class HalvingRules:
    """How chains are scored and halved.

    Attributes:
        task: what is scored.
        first_images: images of the first round.
        criterion: what orders the chains, see `order_of`.
        late: asked before every later round and after each of its batches whether to end; the first round is whole.
        accelerator: with several processes each scores its share of every batch, and all see the scores of all.
        progress: called after every batch.
    """

    task: Task
    first_images: int
    criterion: str = "accuracy"
    late: Callable[[], bool] | None = None
    accelerator: Accelerator | None = None
    progress: Progress | None = None


class Halving:
    """Successive halving over one stream of images: every round goes on where the last one stopped.

    Args:
        clips: what is ranked; `clips[0]` is the identity, which is never eliminated.
        predictor: predicts images under some of the chains.
        held_out: the images.
        rules: how to go on.
        images: only the first so many images choose; None is all of them.
    """

    def __init__(
        self,
        clips: tuple[ClipCandidate, ...],
        predictor: Predictor,
        held_out: HeldOut,
        rules: HalvingRules,
        images: int | None = None,
    ) -> None:
        self.clips, self.predictor, self.rules = clips, predictor, rules
        self.plan = _rounds(len(clips), rules.first_images, held_out.num_images if images is None else images)
        self.planned = sum(keep * images for keep, images in self.plan)
        self.done = 0
        accelerator = rules.accelerator
        self._processes = 1 if accelerator is None else accelerator.num_processes
        self._rank = 0 if accelerator is None else accelerator.process_index
        self._stream = held_out.stream()
        self._rest: tuple[Tensor, Tensor] | None = None

    def run(self) -> Outcome:
        """Carry out all rounds, or as many as are begun before it is late."""
        alive = list(range(len(self.clips)))
        total: Scores | None = None
        eliminated: list[tuple[int, Scores]] = []
        for keep, images in self.plan:
            if total is not None and len(alive) > keep:
                order = order_of(total, self.rules.criterion)
                identity = alive.index(0)
                # The identity is the reference of every gain, so it stays beside the better half.
                kept = sorted({*order[:keep], identity})
                left = [variant for variant in order if variant not in kept]
                eliminated = [(alive[variant], total.pick([variant, identity])) for variant in left] + eliminated
                total, alive = total.pick(kept), [alive[variant] for variant in kept]
            if total is not None and self._late():
                break
            fresh = self._score(alive, images, total is None)
            total = fresh if total is None else total + fresh
        assert total is not None, "the first round is whole"
        return Outcome(self.clips, alive, total, eliminated, self.rules.criterion)

    def _score(self, alive: list[int], images: int, first: bool) -> Scores:
        clips = [self.clips[v] for v in alive]
        begun, before = time.perf_counter(), self.predictor.frames

        def report(batch: int) -> None:
            self.done += batch * self._processes * len(alive)
            if self.rules.progress is not None:
                frames = (self.predictor.frames - before) * self._processes
                speed = frames / (time.perf_counter() - begun)
                done = min(self.done, self.planned)
                self.rules.progress("rank", done, self.planned, chains=len(alive), frames_per_second=speed)

        return score_variants(
            lambda x: self.predictor.predictions(x, clips),
            self._next(images, whole=first),
            self.rules.accelerator,
            task=self.rules.task,
            on_batch=report,
        )

    def _next(self, images: int, *, whole: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of the next `images` of the stream; what is left of a batch is kept for the next round.

        It ends early when it is late, unless the round is to be `whole`.
        """
        while images > 0:
            batch = self._rest if self._rest is not None else next(self._stream, None)
            if batch is None:
                return
            x, y = batch
            self._rest = (x[images:], y[images:]) if len(y) > images else None
            x, y = x[:images], y[:images]
            images -= len(y)
            yield x[self._rank :: self._processes], y[self._rank :: self._processes]
            if not whole and self._late():
                return

    def _late(self) -> bool:
        """Whether to end. Clocks differ between processes: one that is late ends it for all."""
        if self.rules.late is None:
            return False
        late = self.rules.late()
        return any(gather_object([late])) if self._processes > 1 else late


def _rounds(chains: int, first_images: int, total: int) -> list[tuple[int, int]]:
    """(chains that take part, new images) of every round; each round doubles the images seen so far."""
    rounds = []
    keep, seen = chains, 0
    while seen < total:
        new = first_images if seen == 0 else seen
        if keep <= _FINALISTS or seen + new >= total:
            new = total - seen
        rounds.append((keep, new))
        seen += new
        keep = max(keep // 2, _FINALISTS)
    return rounds
