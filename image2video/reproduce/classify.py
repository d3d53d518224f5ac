"""One arm of a classification table with one seed: a network trained and tested by the library's own means."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from image2video import VideoWrap
from image2video.data import Augmentation, DataSource
from image2video.errors import StateError
from image2video.reproduce.genotypes import Chosen, Load, choose
from image2video.reproduce.learned import LearnedAveraging
from image2video.reproduce.networks import build_network
from image2video.reproduce.policies import choose_policy
from image2video.reproduce.record import Named, costs
from image2video.reproduce.scramble import ScrambledClips
from image2video.reproduce.spec import Cell, Setting
from image2video.runs.folders import torch_load
from image2video.training import Metrics, TrainConfig, evaluate, measure_cost, train
from image2video.training.recipe import autocast_dtype

_COST_BATCH = 64


def run_classification(
    arm: Cell,
    setting: Setting,
    seed: int,
    *,
    searches: Path,
    training: Path,
    accelerator: Accelerator,
    load: Load,
    start: Path | None = None,
    progress: Named = lambda stage: None,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Train and test one arm with one seed: its record and its last weights.

    `searches` keeps genotypes and policies that were searched for; `training` is the run's own folder, from which a
    killed run goes on; `start` is the file of the weights to begin with. All arms of a seed start from equal weights of
    the bare network, and see the same batches with the same crops and flips; the test set is read once, at the end,
    with the last weights. `seconds` of the record are those of this process, with any search that it did.
    """
    began = time.perf_counter()
    data = load(setting)
    model = fresh_network(arm, setting, data, seed).to(accelerator.device)
    if start is not None:
        model.load_state_dict(torch_load(start))
    chosen = choose(
        arm,
        setting,
        data,
        searches,
        accelerator,
        load=load,
        model=model if start else None,
        progress=progress("searching a clip"),
    )

    def build() -> nn.Module:
        return fresh_network(arm, setting, data, setting.seed).to(accelerator.device)

    policy = choose_policy(arm, setting, data, searches, accelerator, build, progress("searching a policy"))
    model = wrapped(model, arm, setting, data, seed, chosen).to(accelerator.device)
    images = data if policy.text is None else data.with_policy(Augmentation.parse(policy.text))
    epochs = arm.total_epochs(setting)
    config = setting.training(max(1, epochs), seed, finetune=arm.budget == "finetune")
    if epochs:
        bar = progress("")
        result = train(model, images, config, out=training, resume=True, progress=bar, accelerator=accelerator)
        metrics, seconds = result.test_last, result.seconds
    else:
        metrics, seconds = _tested(model, data, config, accelerator), 0.0
    if not math.isfinite(metrics.loss):
        raise StateError(f"the test loss of {arm.name}, seed {seed}, is {metrics.loss}")
    cost = measure_cost(model, data.input_size, min(_COST_BATCH, setting.batch_size), repeats=5)
    record = {
        "score": 100 * metrics.score,
        "loss": metrics.loss,
        **costs(
            chosen,
            policy,
            cost,
            T=arm.frames_per_image(arm.frames(setting)),
            epochs=epochs,
            images_seen=epochs * data.train.num_images,
            seconds=seconds,
        ),
        "seconds": time.perf_counter() - began,
    }
    if isinstance(model, LearnedAveraging):
        record["widths"] = model.width.tolist()
    return record, {key: value.detach().cpu() for key, value in model.state_dict().items()}


def _tested(model: nn.Module, data: DataSource, config: TrainConfig, accelerator: Accelerator) -> Metrics:
    """An arm that is not trained, with the precision and the layout of those that are."""
    device = accelerator.device
    batches = data.test.batches(config.batch_size, device=device)
    dtype = autocast_dtype(config, device)
    return evaluate(model, batches, device, autocast=dtype, channels_last=config.channels_last)


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
    if arm.learned:
        return LearnedAveraging(model, T=T)
    assert chosen is not None
    clip: dict[str, Any] = {"T": T, "schedule": schedule, "mean": data.mean, "std": data.std}
    options: dict[str, Any] = {"residual": arm.start is not None, "input_size": data.input_size}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if arm.layout == "scrambled":
            return VideoWrap(model, arm.fusion, frames=ScrambledClips(str(chosen.genotype), **clip), **options)
        return VideoWrap(model, arm.fusion, genotype=chosen.genotype, **clip, **options)
