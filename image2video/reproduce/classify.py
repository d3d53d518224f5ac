"""One arm of a classification table with one seed, as a run of `image2video.experiments`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn

from image2video import VideoWrap
from image2video.data import Augmentation, DataSource
from image2video.experiments.bench import seeded, wrap_arm
from image2video.experiments.genotypes import Chosen, rank_on
from image2video.experiments.run import run_arm
from image2video.protocols import Progress
from image2video.reproduce.genotypes import (
    RANK_SPACE,
    Load,
    decided,
    ranked_choice,
    ranked_once,
    row_clip,
    search_classifier,
    table_bench,
)
from image2video.reproduce.learned import LearnedAveraging
from image2video.reproduce.measures import measured
from image2video.reproduce.networks import build_network
from image2video.reproduce.policies import choose_policy
from image2video.reproduce.poses import posed
from image2video.reproduce.record import Named, found
from image2video.reproduce.scramble import ScrambledClips
from image2video.reproduce.spec import Cell, Setting


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
    ranked_for: Path | None = None,
    places: Mapping[str, str] = MappingProxyType({}),
    progress: Named = lambda stage: None,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Train and test one arm with one seed: its record and its last weights.

    `searches` keeps genotypes and policies that were searched for; `training` is the run's own folder, from which a
    killed run goes on; `start` is the file of the weights to begin with, `ranked_for` that of the weights to rank a
    clip for; `places` says where trained weights are. All arms of a seed start from equal weights of the bare network.
    `seconds` of the record are those of this process, with any search that it did.
    """
    began = time.perf_counter()
    data = load(setting.divided_by(seed))
    if arm.pose is not None:
        data = posed(data, arm.pose, setting.padding or "zeros")
    bench = table_bench(setting, data, accelerator, variant=arm.variant, places=places)
    model = bench.network(seed, start)
    judged = ranked_for or start
    chosen = choose(
        arm,
        setting,
        data,
        searches,
        accelerator,
        load=load,
        model=None if judged is None else bench.network(seed, judged),
        weights=None if judged is None else judged.stem,
        places=places,
        progress=progress("searching a clip"),
    )
    policy = choose_policy(
        arm, setting, data, searches, accelerator, lambda: bench.network(setting.seed), progress("searching a policy")
    )
    model = wrapped(model, arm, setting, data, seed, chosen).to(accelerator.device)
    test = partial(measured, data=data, device=accelerator.device) if setting.measures else None
    images = data if policy.text is None else data.with_policy(Augmentation.parse(policy.text))
    finished = run_arm(
        bench, arm, seed, model, chosen, images=images, training=training, progress=progress(""), test=test
    )
    record = finished.record | found(chosen, policy) | {"seconds": time.perf_counter() - began}
    if setting.measures:
        record["curve"] = finished.curve
    if isinstance(model, LearnedAveraging):
        record["widths"] = model.width.tolist()
    return record, finished.weights()


def choose(
    arm: Cell,
    setting: Setting,
    data: DataSource,
    folder: Path,
    accelerator: Accelerator,
    *,
    load: Load,
    model: nn.Module | None = None,
    weights: str | None = None,
    places: Mapping[str, str] = MappingProxyType({}),
    progress: Progress | None = None,
) -> Chosen | None:
    """The genotype of an arm of classification; None for the bare network and learned averaging.

    `searched` is found on the setting's own data and network, `searched@NAME` on those of data set NAME;
    `fixed_weights` is ranked on the held-out images for the weights of `model`; where `weights` names them, the ranking
    is kept in `folder`. A search is kept there too, goes on where it was killed, and never runs twice; all seeds share
    it. `places` says where the trained weights are that a search begins with.

    Raises:
        InputError: an unknown word, or a ranking without held-out images.
    """

    def rank() -> Chosen:
        bench = table_bench(setting, data, accelerator, places=places)
        bench = dataclasses.replace(bench, clip=arm.clip(bench.clip))
        space = setting.rank_space or RANK_SPACE
        ranking = rank_on(bench, arm, model, seed=setting.seed, space=space, clip_at=arm.clip_at)
        return ranked_choice(ranking, accelerator)

    def ranked() -> Chosen:
        if weights is None:
            return rank()
        clip = arm.clip(row_clip(setting, data))
        told = [weights, setting.rank_space, clip.T, clip.schedule, clip.padding, setting.seed, arm.pose]
        if arm.clip_at is not None:  # rankings at the image keep the name that they had before there were places
            told.append(arm.clip_at)
        return ranked_once(told, folder, accelerator, rank)

    def searched(target: Setting) -> Chosen:
        if target.config is None:
            return search_classifier(target, folder, accelerator, load, progress, places)
        from image2video.reproduce.segment_genotypes import search_segmentor  # mmsegmentation is optional

        return search_segmentor(target, load(target), folder, accelerator, progress)

    return decided(arm, setting, searched=searched, ranked=ranked)


def fresh_network(arm: Cell, setting: Setting, data: DataSource, seed: int) -> nn.Module:
    """The bare network: equal weights for equal seeds, so that arms are paired."""
    with seeded(seed):
        return build_network(setting, data, variant=arm.variant)


def wrapped(
    model: nn.Module, arm: Cell, setting: Setting, data: DataSource, seed: int, chosen: Chosen | None
) -> nn.Module:
    """The network as the arm sees it: `wrap_arm`, or one of the two forms that only tables have."""
    clip = arm.clip(row_clip(setting, data))
    genotype = None if chosen is None else chosen.genotype
    if arm.learned:
        return LearnedAveraging(model, T=clip.T)
    if arm.layout == "scrambled" and arm.fusion is not None:
        frames = ScrambledClips(str(genotype), T=clip.T, schedule=clip.schedule, mean=clip.mean, std=clip.std)
        with seeded(seed):
            return VideoWrap(
                model,
                arm.fusion,
                frames=frames,
                residual=arm.start is not None or setting.weights is not None,
                sites=arm.sites,
                input_size=data.input_size,
            )
    return wrap_arm(
        model,
        arm,
        genotype,
        clip,
        seed=seed,
        input_size=data.input_size,
        trained=setting.weights is not None,
        sites=arm.sites,
        clip_at=arm.clip_at,
    )
