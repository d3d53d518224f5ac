"""The genotype of an arm: stated, drawn, searched for (here or on another data set), or ranked for trained weights."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn

from image2video import Genotype
from image2video.data import DataSource, seeded_generator
from image2video.errors import InputError
from image2video.protocols import Progress
from image2video.reproduce.networks import build_network
from image2video.reproduce.spec import Cell, Setting
from image2video.runs.folders import atomic_write_json, read_json
from image2video.search import Ranking, SearchResult, get_space, random_genotype, rank_genotypes, search
from image2video.search.state.state import CHECKPOINT
from image2video.version import __version__

RANK_SPACE = "gentle"
Load = Callable[[Setting], Any]
"""The data of a setting: a `DataSource`, or the plain mmsegmentation config where the setting has one."""


@dataclass(frozen=True)
class Chosen:
    """A genotype, how it came about in words, and what finding it cost."""

    genotype: Genotype
    origin: str
    seconds: float = 0.0


def choose(
    arm: Cell,
    setting: Setting,
    data: DataSource,
    folder: Path,
    accelerator: Accelerator,
    *,
    load: Load,
    model: nn.Module | None = None,
    progress: Progress | None = None,
) -> Chosen | None:
    """The genotype of an arm, its magnitudes scaled by `arm.magnitude`; None for the bare network and learned ones.

    `random:K` is draw K (from 1) of the setting's space, see `_drawn`; `searched` is found on the setting's own data
    and network, `searched@NAME` on those of data set NAME; `fixed_weights` is ranked on the held-out images for the
    weights of `model`. A search is kept in `folder`, goes on where it was killed, and never runs twice; all seeds
    share it. Raises `InputError` for an unknown word, and for a ranking without held-out images.
    """
    return decided(
        arm,
        setting,
        searched=lambda target: searched(target, folder, accelerator, load, progress),
        ranked=lambda: _ranked(arm, setting, data, accelerator, model),
    )


def decided(
    arm: Cell, setting: Setting, *, searched: Callable[[Setting], Chosen], ranked: Callable[[], Chosen]
) -> Chosen | None:
    """What an arm's word for its genotype means; `searched` takes the setting to search with, its own or another."""
    word, _, rest = arm.genotype.partition("@")
    kind, _, number = word.partition(":")
    if arm.genotype in ("none", "learned"):
        return None
    if kind == "random":
        found = Chosen(_drawn(setting.space, int(number or 1)), f"draw {number or 1} from {setting.space}")
    elif kind == "searched":
        found = searched(_on(setting, rest) if rest else setting)
    elif kind == "fixed_weights":
        found = ranked()
    else:
        found = Chosen(Genotype.coerce("identity" if word == "identity" else arm.genotype), "stated")
    return dataclasses.replace(found, genotype=scaled(found.genotype, arm.magnitude))


def searched(setting: Setting, folder: Path, accelerator: Accelerator, load: Load, progress: Progress | None) -> Chosen:
    """The result of the one search with this setting, kept in `folder`; with a segmentor where it has a config."""
    if setting.config is None:
        return _searched(setting, folder, accelerator, load, progress)
    from image2video.reproduce.segment_genotypes import search_segmentor  # mmsegmentation is optional

    return search_segmentor(setting, load(setting), folder, accelerator, progress)


def searched_on(arm: Cell) -> str | None:
    """The other data set that an arm's genotype is found on; None where it is not."""
    word, _, data = arm.genotype.partition("@")
    return data if word == "searched" and data else None


def data_settings(arm: Cell, setting: Setting) -> list[Setting]:
    """The settings whose data an arm reads: its own, and that of a search elsewhere."""
    other = searched_on(arm)
    return [setting] if other is None else [setting, _on(setting, other)]


def _drawn(space: str, number: int) -> Genotype:
    """The draw of that number: the same in every run; what was drawn before, and the identity, do not count."""
    generator, drawn = seeded_generator(0), [Genotype.identity()]
    while len(drawn) <= number:
        genotype = random_genotype(get_space(space), generator)
        drawn += [genotype] if genotype not in drawn else []
    return drawn[number]


def scaled(genotype: Genotype, factor: float) -> Genotype:
    """The genotype with every step so many times as large: magnitudes times the factor, scales to its power."""
    if factor == 1:
        return genotype
    steps = [f"{t.op}({t.magnitude**factor if t.op == 'scale' else t.magnitude * factor!r})" for t in genotype.chain]
    return Genotype.parse(" > ".join(steps) or "identity")


def _on(setting: Setting, data: str) -> Setting:
    """The same search on another data set: its own images, all that there are, and what `elsewhere` says of it."""
    fields = dict(setting.elsewhere.get(data, {}))
    if setting.config is not None and "config" not in fields:
        raise InputError(
            f"a genotype is to be found on {data!r}, and the row's config, {setting.config}, is for {setting.data!r}: "
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


def _searched(
    setting: Setting, folder: Path, accelerator: Accelerator, load: Load, progress: Progress | None
) -> Chosen:
    told: list[Any] = [
        setting.data,
        setting.model,
        setting.image_size,
        setting.train_images,
        setting.holdout,
        setting.T,
    ]
    told += [setting.space, setting.batch_size, setting.seed, setting.search_options, __version__]

    def find(out: Path) -> SearchResult:
        data = load(setting)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(setting.seed)
            backbone = build_network(setting, data)
        return search(
            backbone,
            data.train,
            setting.searching(),
            validation=data.holdout,
            mean=data.mean,
            std=data.std,
            out=out,
            resume=True,
            accelerator=accelerator,
            progress=progress,
            provenance={"dataset": data.short_name, "backbone": setting.model},
        )

    return found_once(setting.data, told, folder, accelerator, find)


def found_once(
    data: str, told: Any, folder: Path, accelerator: Accelerator, find: Callable[[Path], SearchResult]
) -> Chosen:
    """What `find(folder of its own)` finds, kept in `folder` under a hash of `told`, which is all that decides it."""
    key = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]
    record_file, out = folder / f"{data}-{key}.json", folder / f"{data}-{key}"
    if not record_file.is_file():
        result = find(out)
        record = {"genotype": str(result.genotype), "seconds": result.seconds, "settings": told}
        if accelerator.is_main_process:
            atomic_write_json(record_file, record)
            shutil.rmtree((out / CHECKPOINT).parent, ignore_errors=True)  # as large as the network, and of no more use
        accelerator.wait_for_everyone()
    record = read_json(record_file)
    return Chosen(Genotype.parse(record["genotype"]), f"searched on {data}", record["seconds"])


def check_ranking(arm: Cell, setting: Setting, *, weights: bool, held_out: bool) -> None:
    """Raise `InputError` where an arm ranks genotypes without trained weights, or without held-out images."""
    if not weights:
        raise InputError(
            f"arm {arm.name!r} ranks genotypes for trained weights: it needs start=, the arm that has them"
        )
    if not held_out:
        raise InputError(
            f"arm {arm.name!r} ranks genotypes on held-out images, and there are none: holdout={setting.holdout:g}; "
            "set some aside, or leave the arm out"
        )


def _ranked(arm: Cell, setting: Setting, data: DataSource, accelerator: Accelerator, model: nn.Module | None) -> Chosen:
    check_ranking(arm, setting, weights=model is not None, held_out=data.holdout is not None)
    assert model is not None
    assert data.holdout is not None
    options: dict[str, Any] = {"space": RANK_SPACE, "T": setting.T, "schedule": setting.clip_schedule}
    ranking = rank_genotypes(model, data.holdout, seed=setting.seed, **options)
    return ranked_choice(ranking, accelerator)


def ranked_choice(ranking: Ranking, accelerator: Accelerator) -> Chosen:
    """The best of a ranking that every process has made; the main one's, where there are several."""
    found = Chosen(ranking.best, f"ranked on {ranking.images} held-out images", ranking.seconds)
    if accelerator.num_processes > 1:
        # Every process has ranked all images; on a GPU the last digits may differ, the choice must not.
        (found,) = broadcast_object_list([found])
    return found
