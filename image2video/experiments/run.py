"""One run: an arm with one seed is trained, tested and measured."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from image2video.data import DataSource
from image2video.errors import StateError
from image2video.experiments.arms import Arm
from image2video.experiments.bench import Bench
from image2video.experiments.genotypes import Chosen
from image2video.protocols import Progress
from image2video.training import Cost, Metrics, TrainConfig, TrainResult, evaluate, measure_cost, train
from image2video.training.recipe import autocast_dtype

Test = Callable[[nn.Module, TrainConfig], tuple[Metrics, dict[str, Any]]]
"""Tests a network as its training was configured: the metrics, and what else its record says."""


@dataclass(frozen=True)
class Finished:
    """A run that is done: its record as JSON values, its learning curve, and the network with its last weights."""

    record: dict[str, Any]
    curve: list[dict[str, Any]]
    model: nn.Module

    def weights(self) -> dict[str, Tensor]:
        """The last weights, on the CPU."""
        return {name: value.detach().cpu() for name, value in self.model.state_dict().items()}


def run_arm(
    bench: Bench,
    arm: Arm,
    seed: int,
    model: nn.Module,
    chosen: Chosen | None,
    *,
    images: DataSource | None = None,
    training: Path | None = None,
    progress: Progress | None = None,
    test: Test | None = None,
) -> Finished:
    """Train, test and measure the network of an arm with one seed.

    All arms of a seed see the same batches with the same crops and flips. The test set is read once, at the end, with
    the last weights. `model` is the arm's network, wrapped; `images` stand in for those of the bench, for an arm that
    augments them. In the folder `training`, a killed run goes on where it was; without one it begins anew.

    `test` takes the place of the usual test. It alone reads the test set then, and the training ends with another look
    at the held-out images, which there must be.
    """
    began = time.perf_counter()
    T = arm.clip(bench.clip).T
    epochs, per_image = arm.epochs(bench.epochs, bench.finetune_epochs, T), arm.frames_per_image(T)
    seen = epochs * bench.data.train.num_images
    # An arm without training is tested with the precision and the memory layout of the others.
    config = bench.recipe(max(1, epochs), seed, finetune=arm.budget == "finetune")
    if epochs:
        result = train(
            model,
            _without_test(images or bench.data) if test else images or bench.data,
            config,
            out=training,
            resume=training is not None,
            progress=progress,
            accelerator=bench.accelerator,
        )
        metrics, seconds = result.test_last, result.seconds
        curve = _curve(result, bench.data.train.num_images * per_image)
    else:
        seconds, curve = 0.0, []
    more: dict[str, Any] = {}
    if test is not None:
        metrics, more = test(model, config)
    elif not epochs:
        metrics = _tested(bench, model, config)
    if not math.isfinite(metrics.loss):
        raise StateError(
            f"the test loss of {arm.name}, seed {seed}, must be finite, got {metrics.loss}; lower the learning rate"
        )
    cost = measure_cost(model, bench.data.input_size, bench.cost_batch, repeats=5)
    record = {
        "score": 100 * metrics.score,
        "loss": metrics.loss,
        **more,
        "genotype": None if chosen is None else str(chosen.genotype),
        **costs(cost, T=per_image, epochs=epochs, images_seen=seen, seconds=seconds),
        "seconds": time.perf_counter() - began,
    }
    return Finished(record, curve, model)


def _without_test(data: DataSource) -> DataSource:
    """The data with the held-out images in place of the test set."""
    assert data.holdout is not None  # a test that takes this one's place fits something on them
    return replace(data, test=data.holdout)


def train_steps(progress: Progress | None, name: str) -> Progress | None:
    """Report the steps of a training under this name; those of its tests are left out."""
    if progress is None:
        return None

    def report(stage: str, done: int, total: int, **figures: float) -> None:
        if stage == "train":
            progress(name, done, total, **figures)

    return report


def costs(cost: Cost, *, T: int, epochs: float, images_seen: int, seconds: float) -> dict[str, Any]:
    """What a run has seen and what it costs: `T` frames per image, `seconds` of training, the rest per image."""
    return {
        "T": T,
        "epochs": epochs,
        "images_seen": images_seen,
        "frames": images_seen * T,
        "parameters": cost.params,
        "macs": cost.macs_per_image,
        "ms": cost.ms_per_image,
        "peak_mib": cost.peak_mib_per_image,
        "training_seconds": seconds,
    }


def _tested(bench: Bench, model: nn.Module, config: TrainConfig) -> Metrics:
    """The test of a network that is not trained."""
    device = bench.accelerator.device
    batches = bench.data.test.batches(config.batch_size, device=device)
    dtype = autocast_dtype(config, device)
    return evaluate(model, batches, device, autocast=dtype, channels_last=config.channels_last)


def _curve(result: TrainResult, frames_per_epoch: int) -> list[dict[str, Any]]:
    """Training loss and held-out score in percent, after every epoch."""
    return [
        {
            "epoch": record.epoch + 1,
            "frames": (record.epoch + 1) * frames_per_epoch,
            "train_loss": record.train_loss,
            "holdout": None if record.holdout_score is None else 100 * record.holdout_score,
        }
        for record in result.history
    ]
