"""What the genotypes of a table's arms need: one bench a row, searches that never run twice, other data sets."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from accelerate import Accelerator

from image2video.clip.any_clip import parse_clip
from image2video.clip.deep_clip import DeepClip
from image2video.clip.genotype import Genotype
from image2video.clip.options import ClipOptions
from image2video.data import DataSource
from image2video.errors import InputError
from image2video.experiments import genotypes
from image2video.experiments.bench import Bench
from image2video.experiments.genotypes import Chosen, search_on
from image2video.protocols import Progress
from image2video.reproduce.book import agreed
from image2video.reproduce.networks import beginning_network
from image2video.reproduce.spec import Cell, Setting
from image2video.runs.folders import atomic_write_json, read_record
from image2video.search import Ranking, SearchConfig, SearchResult
from image2video.search.state.state import CHECKPOINT
from image2video.version import RUNS_SINCE

RANK_SPACE = "gentle"
Load = Callable[[Setting], Any]
"""The data of a setting: a `DataSource`, or the plain mmsegmentation config where the setting has one."""
_COST_BATCH = 64


def decided(
    arm: Cell, setting: Setting, *, searched: Callable[[Setting], Chosen], ranked: Callable[[], Chosen]
) -> Chosen | None:
    """What an arm's word for its genotype means; `searched` takes the setting to search with, its own or another."""
    if arm.learned:
        return None
    return genotypes.decided(
        arm,
        space=setting.space,
        seed=None,
        searched=lambda data: searched(_on(setting, data) if data else setting),
        ranked=ranked,
    )


def searched_on(arm: Cell) -> str | None:
    """The other data set that an arm's genotype is found on; None where it is not."""
    word, _, data = arm.genotype.partition("@")
    return data if word == "searched" and data else None


def data_settings(arm: Cell, setting: Setting) -> list[Setting]:
    """The settings whose data an arm reads: its own, and that of a search elsewhere."""
    other = searched_on(arm)
    return [setting] if other is None else [setting, _on(setting, other)]


def _on(setting: Setting, data: str) -> Setting:
    """The same search on another data set: its own images, all that there are, and what `elsewhere` says of it."""
    fields = dict(setting.elsewhere.get(data, {}))
    if setting.config is not None and "config" not in fields:
        raise InputError(
            f"a genotype is to be found on {data!r}, and the row's config, {setting.config}, is for {setting.data!r}; "
            f"say elsewhere.{data}.config, which is null for classification"
        )
    own: dict[str, Any] = {
        "data": data,
        "train_images": None,
        "image_size": None,
        "options": {},
        "steps": None,
        "elsewhere": {},
    }
    return dataclasses.replace(setting, **{**own, **fields})


def ranked_choice(ranking: Ranking, accelerator: Accelerator) -> Chosen:
    """The best of a ranking that every process has made; the main one's, where there are several."""
    # Every process has ranked all images; on a GPU the last digits may differ, the choice must not.
    best = ranking.best
    assert not isinstance(best, DeepClip), "the tables rank chains at one place"
    return agreed(accelerator, Chosen(best, f"ranked on {ranking.images} held-out images", ranking.seconds))


def row_clip(setting: Setting, data: DataSource) -> ClipOptions:
    """The clip of a table's row, for arms that say nothing else."""
    padding = setting.padding or "zeros"
    return ClipOptions(T=setting.T, schedule=setting.clip_schedule, padding=padding, mean=data.mean, std=data.std)


def table_bench(
    setting: Setting,
    data: DataSource,
    accelerator: Accelerator,
    *,
    variant: str | None = None,
    places: Mapping[str, str] = MappingProxyType({}),
) -> Bench:
    """The images, the network, the clip and the recipe of a table's row; `places` says where trained weights are."""
    return Bench(
        data=data,
        build=lambda seed: beginning_network(setting, data, places, variant=variant),
        clip=row_clip(setting, data),
        recipe=setting.training,
        epochs=setting.epochs,
        finetune_epochs=setting.finetune_epochs,
        accelerator=accelerator,
        trained=setting.weights is not None,
        cost_batch=min(_COST_BATCH, setting.batch_size),
    )


def search_classifier(
    setting: Setting,
    folder: Path,
    accelerator: Accelerator,
    load: Load,
    progress: Progress | None,
    places: Mapping[str, str] = MappingProxyType({}),
) -> Chosen:
    """The result of the one search with a setting's options, network and images, kept in `folder`."""
    images = [setting.data, setting.model, setting.image_size, setting.train_images, setting.holdout]
    options = [setting.T, setting.space, setting.batch_size, setting.seed, setting.search_options]
    options.append(selecting(setting.searching()))
    if setting.weights is not None:
        options.append(setting.weights)

    def find(out: Path) -> SearchResult:
        bench = table_bench(setting, load(setting), accelerator, places=places)
        return search_on(bench, setting.searching(), out, model=setting.model, seed=setting.seed, progress=progress)

    return found_once(setting.data, [*images, *options, RUNS_SINCE], folder, accelerator, find)


def selecting(options: SearchConfig) -> dict[str, Any]:
    """How a search scores, for the hash of what decides it: a search before there was a choice is another search."""
    return {name: getattr(options, name) for name in ("score_statistics", "renormalise", "score_batch_size")}


def found_once(
    data: str, told: list[Any], folder: Path, accelerator: Accelerator, find: Callable[[Path], SearchResult]
) -> Chosen:
    """What `find(folder of its own)` finds, kept in `folder` under a hash of `told`, which is all that decides it."""
    key = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]
    record_file, out = folder / f"{data}-{key}.json", folder / f"{data}-{key}"
    if not record_file.is_file():
        result = find(out)
        record = {"genotype": str(result.genotype), "seconds": result.seconds, "settings": told}
        if accelerator.is_main_process:
            atomic_write_json(record_file, record)
            # The checkpoint is as large as the network, and of no more use.
            shutil.rmtree((out / CHECKPOINT).parent, ignore_errors=True)
        accelerator.wait_for_everyone()
    found = read_record(record_file, needed=("genotype", "seconds"))
    return Chosen(Genotype.parse(found["genotype"]), f"searched on {data}", found["seconds"])


def ranked_once(told: list[Any], folder: Path, accelerator: Accelerator, rank: Callable[[], Chosen]) -> Chosen:
    """What `rank` chooses, kept in `folder` under a hash of `told`, which is all that decides it."""
    key = hashlib.sha256(json.dumps([*told, RUNS_SINCE], sort_keys=True).encode()).hexdigest()[:12]
    record_file = folder / f"ranked-{key}.json"
    if not record_file.is_file():
        chosen = rank()
        record = {"genotype": str(chosen.genotype), "origin": chosen.origin, "seconds": chosen.seconds, "told": told}
        if accelerator.is_main_process:
            atomic_write_json(record_file, record)
        accelerator.wait_for_everyone()
    found = read_record(record_file, needed=("genotype", "origin", "seconds"))
    return Chosen(parse_clip(found["genotype"]), found["origin"], found["seconds"])
