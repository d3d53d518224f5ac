"""The epochs of a search: bilevel steps, tuning of a partly decided cell, and training on sampled chains."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from image2video.protocols import Batches
from image2video.search.cell.draw import Draw
from image2video.search.cell.mixing import mixing_matrix
from image2video.search.cell.topology import found_clip, random_decisions
from image2video.search.optimise.bilevel import Batch
from image2video.search.optimise.schedule import cosine, linear, tuning_rate, work_share
from image2video.search.optimise.watch import LossWatch, Meter
from image2video.search.run import SearchRun
from image2video.search.score.network import in_mode
from image2video.search.state.budget import SEARCH_SHARE, TUNE_SHARE
from image2video.search.state.seeds import derived_seed, seeded

_SNAPSHOTS = 200


def search_epoch(run: SearchRun, epoch: int, *, moves_tau: bool) -> None:
    """One epoch over the training part; before each weight step a τ step, after the warm-up."""
    config, steps, bilevel = run.config, run.steps_per_epoch, run.bilevel
    if epoch == 0:
        record_tau(run, 0)
        record_epoch(run, 0, {})
    moves = moves_tau and epoch >= config.warmup_epochs
    every = max(1, math.ceil(config.epochs * steps / _SNAPSHOTS))
    losses, held_losses = (LossWatch(what, epoch * steps, run.device) for what in ("training", "validation"))
    held = _grouped(_endless(run.tau_batches, epoch), config.accumulate)
    pace = _Pace(run, "search", epoch, config.epochs, steps, 0.0, SEARCH_SHARE)
    with in_mode(bilevel.network, training=True):
        for step, batch in pace.over(run.train_batches.epoch(epoch)):
            count = len(batch[1])
            if moves:
                images, labels = next(held)
                held_losses.add(bilevel.tau_step(images, labels, batch, _draw(run, pace.share, f"tau {step}")))
                count += _tau_images(run, labels, batch)
            losses.add(bilevel.weight_step(*batch, *_path(run, _draw(run, pace.share, f"weights {step}"))))
            if (step + 1) % every == 0:
                record_tau(run, step + 1)
            pace.count(count, epoch=epoch + 1, loss=losses.latest)
    run.tick()
    if pace.done:
        found = {"train_loss": _mean(run, losses), "validation_loss": _mean(run, held_losses) if moves else None}
        record_epoch(run, epoch + 1, {**found, **pace.cut()})


def tune_epoch(run: SearchRun, epoch: int, total: int, *, moves_tau: bool) -> None:
    """One epoch of bilevel steps through the cell as decided so far, after a decision.

    The weights' optimizer begins anew, at a tenth of the learning rate, which falls over all `total` epochs; that of τ
    goes on as it is (the code of Wang et al., ICLR 2021). τ rests once all edges are decided.
    """
    config, steps, decisions, bilevel = run.config, run.steps_per_epoch, run.state.decisions, run.bilevel
    watch, held_watch = (LossWatch(what, epoch * steps, run.device) for what in ("tuning", "validation"))
    open_edges = len(decisions.ops) < len(run.space.edges)
    moves = moves_tau and (open_edges or run.cell.magnitudes is not None)
    # Orders of the search's own epochs are not repeated.
    number = config.epochs + epoch
    held = _grouped(_endless(run.tau_batches, number), config.accumulate)
    pace = _Pace(run, "tune", epoch, total, steps, SEARCH_SHARE, TUNE_SHARE, rate=tuning_rate)
    if epoch == 0:
        bilevel.restart_weights()
    with in_mode(bilevel.network, training=True):
        for step, batch in pace.over(run.train_batches.epoch(number)):
            count = len(batch[1])
            if moves:
                images, labels = next(held)
                draw = _draw(run, 1.0, f"tune tau {step}")
                held_watch.add(bilevel.tau_step(images, labels, batch, draw, decisions))
                count += _tau_images(run, labels, batch)
            draw = _draw(run, 1.0, f"tune {step}")
            path = (mixing_matrix(run.tau(), run.space, decisions), None) if draw is None else _path(run, draw)
            watch.add(bilevel.weight_step(*batch, *path))
            pace.count(count, loss=watch.latest)
    run.tick()
    if pace.done:
        decided = run.state.nodes or run.state.edges
        decided[-1].setdefault("tuning_loss", []).append(_mean(run, watch))


def _tau_images(run: SearchRun, labels: Tensor, batch: Batch) -> int:
    """The images that a step for τ puts through the network."""
    unrolled = run.config.second_order and run.bilevel.optimizer is not None
    return len(labels) + (3 * len(batch[1]) if unrolled else 0)


def one_shot_epoch(run: SearchRun, epoch: int) -> None:
    """One epoch of weight steps; each batch goes through the clip of one chain, drawn by (seed, epoch, step)."""
    config, steps = run.config, run.steps_per_epoch
    watch = LossWatch("training", epoch * steps, run.device)
    pace = _Pace(run, "sampled", epoch, config.epochs, steps, 0.0, SEARCH_SHARE)
    with in_mode(run.bilevel.network, training=True):
        for step, batch in pace.over(run.train_batches.epoch(epoch)):
            chain = found_clip(random_decisions(run.space, seeded(config.seed, f"chain {step}")), run.space)
            watch.add(run.bilevel.clip_step(*batch, run.video(chain)))
            pace.count(len(batch[1]), epoch=epoch + 1, loss=watch.latest)
    run.tick()
    if pace.done:
        run.state.sampled.append({"epoch": epoch + 1, "train_loss": _mean(run, watch), **pace.cut()})


def record_tau(run: SearchRun, step: int) -> None:
    """Keep τ as it is after so many steps."""
    run.state.steps.append({"step": step, "tau": run.tau().tolist()})


def record_epoch(run: SearchRun, epoch: int, more: dict[str, Any]) -> None:
    """Keep the softmax weights of τ, their entropy, and the magnitudes where they are learned."""
    weights = torch.softmax(run.tau().double(), dim=-1)
    entropy = max(0.0, float(-torch.special.xlogy(weights, weights).sum(dim=-1).mean()))
    magnitudes = run.cell.candidate_magnitudes()
    learned = {} if magnitudes is None else {"magnitudes": magnitudes}
    run.state.epochs.append({"epoch": epoch, "weights": weights.tolist(), "entropy": entropy, **learned, **more})


class _Pace:
    """The steps of one epoch within its stage: learning rate, progress, counting, and the end of the budget.

    Args:
        run: the search.
        stage: its name for the progress.
        epoch: the epoch within the stage.
        epochs: the epochs of the stage.
        steps: the steps of an epoch.
        low: the share of the budget before the stage.
        high: the share of the budget with which the stage ends, in the middle of an epoch too.
        rate: the learning rate of `config.lr`, `config.lr_min` and the share of the stage that is done.
    """

    def __init__(
        self,
        run: SearchRun,
        stage: str,
        epoch: int,
        epochs: int,
        steps: int,
        low: float,
        high: float,
        *,
        rate: Callable[[float, float, float], float] = cosine,
    ) -> None:
        self.done = 0
        self.share = 0.0
        self._rate = rate
        self._run, self._epoch, self._epochs, self._steps = run, epoch, epochs, steps
        self._low, self._high = low, high
        self._meter = Meter(run.progress, stage, epoch * steps, epochs * steps)

    def over(self, batches: Iterable[Batch]) -> Iterator[tuple[int, Batch]]:
        """The batches of one step after the other, each with the number of its step within the stage."""
        config = self._run.config
        for batch in _grouped(batches, config.accumulate):
            spent = self._run.spent()
            if spent >= self._high:
                return
            if self.done == 0 or self._run.budget.limited:
                self.share = work_share(self._epoch, self._epochs, spent, self._low, self._high)
                self._run.bilevel.set_lr(self._rate(config.lr, config.lr_min, self.share))
            yield self._epoch * self._steps + self.done, batch
            self.done += 1

    def count(self, images: int, **figures: float) -> None:
        """Count the images that this process has put through the network in one step, and report it."""
        self._run.budget.add(images)
        self._meter.step(images * self._run.accelerator.num_processes, **figures)

    def cut(self) -> dict[str, int]:
        """What the record of an epoch says in addition where the budget has cut it short."""
        return {} if self.done == self._steps else {"steps": self.done}


def _draw(run: SearchRun, share: float, purpose: str) -> Draw | None:
    """How one step of `single_path` draws its path; None for the mixture."""
    config = run.config
    if config.relaxation == "mixture":
        return None
    temperature = linear(config.temperature, config.temperature_min, share)
    return Draw(temperature, derived_seed(config.seed, f"path {purpose}"), run.state.decisions)


def _path(run: SearchRun, draw: Draw | None) -> tuple[Tensor | None, tuple[int, ...] | None]:
    return (None, None) if draw is None else draw.path(run.cell.tau.detach(), run.space)


def _mean(run: SearchRun, watch: LossWatch) -> float:
    """The mean loss of all processes, the same on each."""
    mean = watch.mean()
    if run.accelerator.num_processes == 1:
        return mean
    return float(run.accelerator.reduce(torch.tensor(mean, device=run.device), "mean"))


def _grouped(batches: Iterable[Batch], count: int) -> Iterator[Batch]:
    """Join every `count` batches into one; the last group may be smaller."""
    rest = iter(batches)
    while group := list(islice(rest, count)):
        yield group[0] if len(group) == 1 else (torch.cat([b[0] for b in group]), torch.cat([b[1] for b in group]))


def _endless(batches: Batches, epoch: int) -> Iterator[Batch]:
    """Repeat the batches of an epoch, since the two parts of the images may differ by a batch."""
    while True:
        yield from batches.epoch(epoch)
