"""A running search: network, cell, optimisers, data and records, and what can be done with them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn

from image2video.protocols import Batches, ImageSet, Progress
from image2video.search.averaging import evaluating
from image2video.search.bilevel import Bilevel, LossWatch, weight_optimizer
from image2video.search.cell import Cell, CellTrace
from image2video.search.config import SearchConfig
from image2video.search.measure import PairedScores, score_variants
from image2video.search.mixing import mixing_matrix
from image2video.search.network import FrameNetwork
from image2video.search.selection import derived_seed, seeded
from image2video.search.space import SearchSpace
from image2video.search.state import SearchState

_SNAPSHOTS = 200


class SearchRun:
    """Everything that a search through the cell needs while it runs, on the accelerator's device."""

    def __init__(
        self,
        network: FrameNetwork,
        space: SearchSpace,
        config: SearchConfig,
        train: ImageSet,
        validation: ImageSet,
        accelerator: Accelerator,
        progress: Progress | None = None,
    ) -> None:
        self.space, self.config, self.accelerator = space, config, accelerator
        self.state = SearchState()
        self.measurements = 1  # how often `score` is called in all, for the progress
        self._progress = progress
        cell = Cell(
            space,
            config.T,
            padding=config.padding,
            interpolation=config.interpolation,
            generator=seeded(config.seed, "tau"),
        )
        self.cell = cell.to(accelerator.device)
        if config.channels_last:
            network.backbone.to(memory_format=torch.channels_last)  # 5-D gates of the fusions know no such layout
        optimizer = weight_optimizer(network, config)
        if optimizer is None:
            self.bilevel = Bilevel(accelerator.prepare(network), self.cell, None, accelerator, config)
        else:
            prepared, prepared_optimizer = accelerator.prepare(network, optimizer)
            self.bilevel = Bilevel(prepared, self.cell, prepared_optimizer, accelerator, config)
        self._train = self._batches(train, "weights", training=True)
        self._tau_batches = self._batches(validation, "tau", training=True)
        limit = config.validation_images
        held_out = validation
        if limit is not None and limit < validation.num_images:
            held_out = validation.take(limit, seed=derived_seed(config.seed, "held out"))
        self._held_out = self._batches(held_out, "held out", training=False)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch over the training part."""
        return len(self._train)

    def tau(self) -> Tensor:
        """τ as it is, on the CPU, without gradient."""
        return self.cell.tau.detach().cpu()

    def search_epoch(self, epoch: int, *, moves_tau: bool) -> None:
        """One epoch over the training part; before each weight step a τ step, after the warm-up."""
        config, steps = self.config, self.steps_per_epoch
        if epoch == 0:
            self._snapshot(0)
            self._epoch_record(0, {})
        moves = moves_tau and epoch >= config.warmup_epochs
        every = max(1, math.ceil(config.epochs * steps / _SNAPSHOTS))
        watches = [LossWatch(what, epoch * steps, self.accelerator.device) for what in ("training", "validation")]
        self.bilevel.set_lr(cosine(config.lr, config.lr_min, epoch, config.epochs))
        validation = self._endless(self._tau_batches, epoch)
        seen = 0
        with _training(self.bilevel.network):
            meter = _Meter(self._progress, "search", epoch * steps, config.epochs * steps)
            for step, (images, labels) in enumerate(self._train.epoch(epoch)):
                count = len(labels)
                if moves:
                    held_images, held_labels = next(validation)
                    watches[1].add(self.bilevel.tau_step(held_images, held_labels))
                    count += len(held_labels)
                watches[0].add(self.bilevel.weight_step(images, labels))
                seen += count
                if (epoch * steps + step + 1) % every == 0:
                    self._snapshot(epoch * steps + step + 1)
                meter.step(count * self.accelerator.num_processes, epoch=epoch + 1, loss=watches[0].latest)
        self._count(seen)
        losses = {"train_loss": watches[0].mean(), "validation_loss": watches[1].mean() if moves else None}
        self._epoch_record(epoch + 1, losses)

    def tune_epoch(self, epoch: int, total: int) -> None:
        """One epoch of weight steps through the cell as decided so far; the rate falls over all `total` epochs."""
        config, steps = self.config, self.steps_per_epoch
        watch = LossWatch("tuning", epoch * steps, self.accelerator.device)
        self.bilevel.set_lr(cosine(config.lr, config.lr_min, epoch, total))
        mixing = mixing_matrix(self.tau(), self.space, self.state.decisions)
        seen = 0
        with _training(self.bilevel.network):
            meter = _Meter(self._progress, "tune", epoch * steps, total * steps)
            # Orders of the search's own epochs are not repeated.
            for images, labels in self._train.epoch(config.epochs + epoch):
                watch.add(self.bilevel.weight_step(images, labels, mixing))
                seen += len(labels)
                meter.step(len(labels) * self.accelerator.num_processes, loss=watch.latest)
        self._count(seen)
        self.state.edges[-1].setdefault("tuning_loss", []).append(watch.mean())

    def score(self, mixings: list[Tensor], first: int) -> PairedScores:
        """Held-out scores under several mixing matrices that agree on all edges into nodes before `first`."""
        self.share_buffers()
        bare = self.bilevel.bare
        batches = len(self._held_out)
        decided = len(self.state.edges) + len(self.state.nodes)
        meter = _Meter(self._progress, "select", decided * batches, max(self.measurements, decided + 1) * batches)

        def variants(images: Tensor) -> list[Tensor]:
            trace = CellTrace(first)
            with self.accelerator.autocast():
                return [bare(self.cell(images, mixing, trace=trace)) for mixing in mixings]

        with evaluating(bare), torch.no_grad():
            scores = score_variants(variants, self._held_out.epoch(0), self.accelerator, on_batch=meter.step)
        self.state.evaluated_frames += scores.n * self.config.T * len(mixings)
        return scores

    def score_chosen(self) -> None:
        """Score the discretised cell and put it into the records."""
        scores = self.score([mixing_matrix(self.tau(), self.space, self.state.decisions)], self.space.inputs)
        self.state.score = {
            "images": scores.n,
            "accuracy": scores.accuracy(0),
            "accuracy_error": scores.accuracy_error(0),
            "loss": scores.mean_loss(0),
            "loss_error": scores.loss_error(0),
        }

    def _batches(self, images: ImageSet, purpose: str, *, training: bool) -> Batches:
        return images.batches(
            self.config.batch_size,
            augment=training and self.config.augment,
            shuffle=training,
            seed=derived_seed(self.config.seed, purpose),
            device=self.accelerator.device,
            shard=(self.accelerator.process_index, self.accelerator.num_processes),
        )

    def _endless(self, batches: Batches, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch over and over: the two parts may differ by a batch."""
        while True:
            yield from batches.epoch(epoch)

    def _count(self, images: int) -> None:
        """Add the images of all processes to the frames that went forward and backward."""
        if self.accelerator.num_processes > 1:
            images = int(self.accelerator.reduce(torch.tensor(images, device=self.accelerator.device), "sum"))
        self.state.frames += images * self.config.T

    def _snapshot(self, step: int) -> None:
        self.state.steps.append({"step": step, "tau": self.tau().tolist()})

    def _epoch_record(self, epoch: int, losses: dict[str, Any]) -> None:
        weights = torch.softmax(self.tau().double(), dim=-1)
        entropy = max(0.0, float(-torch.special.xlogy(weights, weights).sum(dim=-1).mean()))
        self.state.epochs.append({"epoch": epoch, "weights": weights.tolist(), "entropy": entropy, **losses})

    def share_buffers(self) -> None:
        """Give all processes the main one's buffers: each has moved its own BatchNorm statistics."""
        if self.accelerator.num_processes > 1:
            for buffer in self.bilevel.bare.buffers():
                buffer.copy_(broadcast(buffer))


def cosine(high: float, low: float, epoch: int, total: int) -> float:
    """The learning rate of an epoch: from `high` at epoch 0 towards `low` at the end."""
    return low + (high - low) * (1 + math.cos(math.pi * epoch / max(total, 1))) / 2


@contextmanager
def _training(network: nn.Module) -> Iterator[None]:
    """The network in training mode; every module's own mode comes back afterwards."""
    resting = [module for module in network.modules() if not module.training]
    network.train()
    try:
        yield
    finally:
        for module in resting:
            module.training = False


class _Meter:
    """Counts steps of a stage and reports them with their speed."""

    def __init__(self, progress: Progress | None, stage: str, done: int, total: int) -> None:
        self._progress, self._stage, self._done, self._total = progress, stage, done, total
        self._images, self._begun = 0, time.perf_counter()

    def step(self, images: int, **figures: float) -> None:
        self._done += 1
        self._images += images
        if self._progress is not None:
            speed = self._images / (time.perf_counter() - self._begun)
            self._progress(self._stage, self._done, self._total, images_per_second=speed, **figures)
