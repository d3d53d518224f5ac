"""The genotype of an arm of segmentation: searched for with the row's segmentor, or ranked for its trained weights."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from mmengine.config import Config

from image2video.experiments.genotypes import Chosen, check_ranking
from image2video.integrations.openmmlab.search_task import build_from
from image2video.protocols import Progress
from image2video.reproduce.genotypes import (
    RANK_SPACE,
    Load,
    decided,
    found_once,
    ranked_choice,
    search_classifier,
    selecting,
)
from image2video.reproduce.segment_reading import plain_values
from image2video.reproduce.spec import Cell, Setting
from image2video.search import Problem, Request, SearchConfig, SearchResult, rank_genotypes, search
from image2video.version import RUNS_SINCE


def choose_for_segmentor(
    arm: Cell,
    setting: Setting,
    config: Config,
    folder: Path,
    accelerator: Accelerator,
    *,
    load: Load,
    weights: Path | None = None,
    progress: Progress | None = None,
) -> Chosen | None:
    """The genotype of an arm of segmentation, as `choose` gives it for classification.

    `config` is the row's plain config: `train_dataloader` reads the training part, `val_dataloader` the held-out part,
    never the test split. A search trains on the former and chooses on the latter; `fixed_weights` ranks on the latter
    for `weights`, a plain segmentor's file. `searched@NAME` asks `load` for the other data set, of either task. Raises
    `InputError` as `choose` does and for data that cannot be read, `UnsupportedError` for a segmentor or head that the
    search does not know.
    """

    def search_on(target: Setting) -> Chosen:
        if target.config is None:
            return search_classifier(target, folder, accelerator, load, progress)
        plain = config if target is setting else load(target)
        return search_segmentor(target, plain, folder, accelerator, progress)

    return decided(
        arm,
        setting,
        searched=search_on,
        ranked=lambda: _ranked(arm, setting, config, accelerator, weights, progress),
    )


def search_segmentor(
    setting: Setting, config: Config, folder: Path, accelerator: Accelerator, progress: Progress | None = None
) -> Chosen:
    """The one search with a setting's options and a plain config's segmentor and images, kept in `folder`.

    Batches are the config's, unless `setting.search` says `batch_size`.
    """
    options = _search_options(setting, config)
    told = [setting.data, _deciding(config), setting.T, setting.space, options.batch_size, setting.seed]
    told += [setting.search_options, selecting(options), RUNS_SINCE]

    def find(out: Path) -> SearchResult:
        problem = _problem(setting, config, options)
        return search(
            problem.network,
            problem.train,
            options,
            validation=problem.holdout,
            task=problem.task,
            mean=problem.mean,
            std=problem.std,
            out=out,
            resume=True,
            accelerator=accelerator,
            progress=progress,
            provenance={"dataset": problem.short_name, "backbone": problem.model},
        )

    return found_once(setting.data, told, folder, accelerator, find)


def _search_options(setting: Setting, config: Config) -> SearchConfig:
    return dataclasses.replace(setting, batch_size=config.train_dataloader.batch_size).searching()


def _problem(setting: Setting, config: Config, options: SearchConfig, weights: Path | None = None) -> Problem:
    held_out = "val" if config.get("val_dataloader") else "train"
    workers = min(config.train_dataloader.get("num_workers", 0), (os.cpu_count() or 1) - 1)
    given = None if weights is None else str(weights)
    return build_from(config, setting.data, Request(options, held_out=held_out, weights=given, workers=workers))


def _ranked(
    arm: Cell,
    setting: Setting,
    config: Config,
    accelerator: Accelerator,
    weights: Path | None,
    progress: Progress | None,
) -> Chosen:
    check_ranking(arm, weights=weights is not None, held_out=bool(config.get("val_dataloader")))
    space = setting.rank_space or RANK_SPACE
    options = dataclasses.replace(_search_options(setting, config), selection="fixed_weights", space=space)
    problem = _problem(setting, config, options, weights)
    assert problem.holdout is not None
    ranking = rank_genotypes(
        problem.network.to(accelerator.device),
        problem.holdout,
        space=space,
        T=setting.T,
        schedule=setting.clip_schedule,
        padding=setting.padding or "zeros",
        judge=0,  # the arm that is trained with the winner judges it
        seed=setting.seed,
        batch_size=options.batch_size * setting.T,
        task=problem.task,
        mean=problem.mean,
        std=problem.std,
        progress=progress,
    )
    return ranked_choice(ranking, accelerator)


def _deciding(config: Config) -> dict[str, Any]:
    """What of a config decides what a search finds, as JSON values: the network, the images and how they are read."""
    parts = {key: config.get(key) for key in ("model", "data_preprocessor")}
    for key in ("train_dataloader", "val_dataloader"):
        parts[key] = (config.get(key) or {}).get("dataset")
    return {key: plain_values(value) for key, value in parts.items()}
