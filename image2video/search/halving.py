"""Successive halving: many chains on few images, then fewer chains on more."""

from __future__ import annotations

import time
from collections.abc import Iterator

from torch import Tensor

from image2video.genotype import Genotype
from image2video.protocols import Progress
from image2video.search.averaging import AveragedFrames
from image2video.search.measure import PairedScores, score_variants
from image2video.search.pool import HeldOut
from image2video.search.ranking import order_of

_FINALISTS = 8


class Halving:
    """Successive halving over one stream of images: every round goes on where the last one stopped.

    `chains[0]` is the identity, which is never eliminated.
    """

    def __init__(
        self,
        chains: tuple[Genotype, ...],
        averaged: AveragedFrames,
        held_out: HeldOut,
        first_images: int,
        max_seconds: float | None,
        progress: Progress | None,
    ) -> None:
        self.chains = chains
        self.averaged = averaged
        self.progress = progress
        self.deadline = None if max_seconds is None else time.perf_counter() + max_seconds
        self.total = held_out.num_images
        self.plan = _rounds(len(chains), first_images, self.total)
        self.planned = sum(keep * images for keep, images in self.plan)
        self.done = 0
        self._stream = held_out.stream()
        self._rest: tuple[Tensor, Tensor] | None = None

    def run(self) -> tuple[list[int], PairedScores, list[tuple[int, PairedScores]]]:
        """The finalists, their scores on all images, and the eliminated with the scores at which they left.

        The scores of an eliminated chain are those of two variants: the chain and the identity.
        """
        alive = list(range(len(self.chains)))
        total: PairedScores | None = None
        eliminated: list[tuple[int, PairedScores]] = []
        for keep, images in self.plan:
            if total is not None and len(alive) > keep:
                order = order_of(total)
                # The identity is the reference of every gain, so it stays beside the better half.
                kept = sorted({*order[:keep], alive.index(0)})
                left = [v for v in order if v not in kept]
                eliminated = [(alive[v], total.pick([v, alive.index(0)])) for v in left] + eliminated
                total, alive = total.pick(kept), [alive[v] for v in kept]
            if self._late(total):
                break
            fresh = self._score(alive, images, total is None)
            total = fresh if total is None else total + fresh
        assert total is not None
        return alive, total, eliminated

    def _score(self, alive: list[int], images: int, first: bool) -> PairedScores:
        genotypes = [self.chains[v] for v in alive]
        begun = time.perf_counter()
        count = 0

        def report(batch: int) -> None:
            nonlocal count
            count += batch
            self.done += batch * len(alive)
            if self.progress is not None:
                speed = count * len(alive) * self.averaged.T / (time.perf_counter() - begun)
                done = min(self.done, self.planned)
                self.progress("rank", done, self.planned, chains=len(alive), frames_per_second=speed)

        batches = self._next(images, stop_early=not first)
        return score_variants(lambda x: self.averaged.logits(x, genotypes), batches, on_batch=report)

    def _next(self, images: int, stop_early: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """The next `images` of the stream; a batch that reaches beyond is cut and its rest kept."""
        while images > 0:
            batch = self._rest if self._rest is not None else next(self._stream, None)
            if batch is None:
                return
            x, y = batch
            self._rest = (x[images:], y[images:]) if len(y) > images else None
            yield x[:images], y[:images]
            images -= min(images, len(y))
            if stop_early and self._late(True):
                return

    def _late(self, scored: object) -> bool:
        return scored is not None and self.deadline is not None and time.perf_counter() > self.deadline


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
