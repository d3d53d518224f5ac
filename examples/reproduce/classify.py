"""One arm of a classification table with one seed: a network trained and tested by the library's own means."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from image2video import VideoWrap
from image2video.data import Augmentation, DataSource
from image2video.errors import StateError
from image2video.files import torch_load
from image2video.protocols import Progress
from image2video.reproduce.genotypes import Chosen, choose
from image2video.reproduce.learned import LearnedAveraging
from image2video.reproduce.networks import build_network
from image2video.reproduce.scramble import ScrambledClips
from image2video.reproduce.spec import Cell, Setting
from image2video.training import evaluate, measure_cost, search_augmentation, train
from image2video.training.recipe import autocast_dtype

_COST_BATCH = 64


def run_classification(
    arm: Cell,
    setting: Setting,
    seed: int,
    data: DataSource,
    *,
    searches: Path,
    training: Path,
    accelerator: Accelerator,
    specs: Mapping[str, str],
    start: Path | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Train and test one arm with one seed: its record and its last weights.

    `searches` keeps genotypes and policies that were searched for; `training` is the run's own folder, from which a
    killed run goes on; `start` is the file of the weights to begin with. All arms of a seed start from equal weights.
    """
    began = time.perf_counter()
    model = fresh_network(arm, setting, data, seed).to(accelerator.device)
    if start is not None:
        model.load_state_dict(torch_load(start))
    chosen = choose(arm, setting, data, searches, accelerator, specs=specs, model=model if start else None)
    policy, policy_seconds = _policy(arm, setting, data, searches, accelerator, seed)
    model = wrapped(model, arm, setting, data, seed, chosen).to(accelerator.device)
    images = data if policy is None else data.with_policy(Augmentation.parse(policy))
    epochs, T = arm.total_epochs(setting), arm.frames(setting)
    per_image = arm.frames_per_image(T)
    config = setting.training(max(1, epochs), seed, finetune=arm.budget == "finetune")
    if epochs:
        result = train(model, images, config, out=training, resume=True, progress=progress, accelerator=accelerator)
        metrics, seconds = result.test_last, result.seconds
    else:
        batches = data.test.batches(config.batch_size, device=accelerator.device)
        dtype = autocast_dtype(config, accelerator.device)
        metrics, seconds = evaluate(model, batches, accelerator.device, autocast=dtype), 0.0
    if not torch.isfinite(torch.tensor(metrics.loss)):
        raise StateError(f"the test loss of {arm.name}, seed {seed}, is {metrics.loss}")
    cost = measure_cost(model, data.input_size, _COST_BATCH, repeats=5)
    seen = epochs * data.train.num_images
    record = {
        "score": 100 * metrics.score,
        "loss": metrics.loss,
        "genotype": None if chosen is None else str(chosen.genotype),
        "origin": None if chosen is None else chosen.origin,
        "policy": policy,
        "search_minutes": ((0 if chosen is None else chosen.seconds) + policy_seconds) / 60,
        "T": per_image,
        "epochs": epochs,
        "images_seen": seen,
        "frames": seen * per_image,
        "parameters": cost.params,
        "macs": cost.macs_per_image,
        "ms": cost.ms_per_image,
        "peak_mib": cost.peak_mib_per_image,
        "training_seconds": seconds,
        "seconds": time.perf_counter() - began,
    }
    return record, {key: value.detach().cpu() for key, value in model.state_dict().items()}


def fresh_network(arm: Cell, setting: Setting, data: DataSource, seed: int) -> nn.Module:
    """The bare network: equal weights for equal seeds, so that arms are paired."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(setting, data, variant=arm.variant)


def wrapped(
    model: nn.Module, arm: Cell, setting: Setting, data: DataSource, seed: int, chosen: Chosen | None
) -> nn.Module:
    """The network as the arm sees it; fusions on trained weights start as none, others are as published."""
    if arm.fusion is None:
        return model
    T, schedule = arm.frames(setting), arm.schedule or setting.clip_schedule
    clip: dict[str, Any] = {"T": T, "schedule": schedule, "mean": data.mean, "std": data.std}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if arm.learned:
            return LearnedAveraging(model, **clip)
        assert chosen is not None
        options: dict[str, Any] = {"residual": arm.start is not None, "input_size": data.input_size}
        if arm.layout == "scrambled":
            return VideoWrap(model, arm.fusion, frames=ScrambledClips(str(chosen.genotype), **clip), **options)
        return VideoWrap(model, arm.fusion, genotype=chosen.genotype, **clip, **options)


def _policy(
    arm: Cell, setting: Setting, data: DataSource, searches: Path, accelerator: Accelerator, seed: int
) -> tuple[str | None, float]:
    """The policy of the training images, and the seconds that a search for it took."""
    if arm.augment is None:
        return None, 0.0
    how, _, family = arm.augment.partition(":")
    if how != "search":
        return arm.augment, 0.0
    short = max(1, setting.epochs // 2)
    result = search_augmentation(
        family,
        data,
        lambda policy: fresh_network(arm, setting, data, setting.seed).to(accelerator.device),
        setting.training(short, setting.seed, finetune=False),
        minutes=setting.augment_minutes,
        reference=False,
        seed=setting.seed,
        out=searches / f"{family}-{setting.data}-{setting.model}-{setting.augment_minutes:g}min-{short}epochs",
        resume=True,
        accelerator=accelerator,
    )
    return str(result.best), result.seconds
