"""Where the genotype of an arm comes from: a text, a draw, a search, or a ranking for trained weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from image2video.clip.any_clip import Clip, as_clip, parse_clip
from image2video.clip.frame_set import FrameSet
from image2video.clip.genotype import Genotype
from image2video.clip.ops.registry import get_op
from image2video.data import seeded_generator
from image2video.errors import InputError
from image2video.experiments.arms import Arm
from image2video.experiments.bench import Bench
from image2video.experiments.config import DemoConfig
from image2video.protocols import Progress, named
from image2video.runs.folders import OutputDirectory, atomic_write_json, read_record
from image2video.search import (
    Ranking,
    SearchConfig,
    SearchResult,
    get_space,
    random_genotype,
    rank_genotypes,
    search,
)


@dataclass(frozen=True)
class Chosen:
    """A genotype or frame set, how it came about in words, and the seconds that finding it took."""

    genotype: Clip
    origin: str
    seconds: float = 0.0


def decided(
    arm: Arm,
    *,
    space: str,
    seed: int | None,
    searched: Callable[[str], Chosen],
    ranked: Callable[[], Chosen],
) -> Chosen | None:
    """What an arm's word for its genotype means, with its magnitudes scaled; None for a network without a genotype.

    `random` without a number is drawn by `seed`, and is draw 1 where `seed` is None. `searched` is called with the name
    of the other data set that `searched@NAME` asks for, empty for the arm's own.
    """
    word, _, data = arm.genotype.partition("@")
    kind, _, number = word.partition(":")
    if arm.genotype == "none":
        return None
    if word == "random" and seed is not None:
        found = Chosen(random_genotype(get_space(space), seeded_generator(seed)), f"drawn from {space}")
    elif kind == "random":
        found = Chosen(draw(space, int(number or 1)), f"draw {number or 1} from {space}")
    elif kind == "searched":
        found = searched(data)
    elif kind == "fixed_weights":
        found = ranked()
    else:
        found = Chosen(as_clip(arm.genotype), "stated")
    return dataclasses.replace(found, genotype=scaled(found.genotype, arm.magnitude))


def stated(arm: Arm, seed: int, model: nn.Module) -> Chosen | None:
    """The genotype that an arm states itself; None for the bare network."""
    return None if arm.genotype == "none" else Chosen(parse_clip(arm.genotype), "stated")


def draw(space: str, number: int) -> Genotype:
    """Draw `number` (from 1) of a space, the same in every run; repetitions and the identity do not count."""
    generator, drawn = seeded_generator(0), [Genotype.identity()]
    while len(drawn) <= number:
        genotype = random_genotype(get_space(space), generator)
        if genotype not in drawn:
            drawn.append(genotype)
    return drawn[number]


def scaled(clip: Clip, factor: float) -> Clip:
    """The clip with every magnitude `factor` times as large; that of `scale` takes the factor as a power.

    Flips have no magnitude and stay.
    """
    if factor == 1:
        return clip
    if isinstance(clip, FrameSet):
        return FrameSet(tuple(_scaled(frame, factor) for frame in clip.frames))
    return _scaled(clip, factor)


def _scaled(genotype: Genotype, factor: float) -> Genotype:
    steps = []
    for step in genotype.chain:
        if get_op(step.op).mirrors:
            steps.append(step)
            continue
        magnitude = step.magnitude**factor if step.op == "scale" else step.magnitude * factor
        steps.append(dataclasses.replace(step, magnitude=magnitude))
    return Genotype(tuple(steps))


def search_on(
    bench: Bench, config: SearchConfig, out: Path, *, model: str, seed: int, progress: Progress | None = None
) -> SearchResult:
    """Search with the network and the images of a bench, in the folder `out`; a killed search goes on there."""
    data = bench.data
    return search(
        bench.network(seed),
        data.train,
        config,
        validation=data.holdout,
        mean=data.mean,
        std=data.std,
        out=out,
        resume=True,
        accelerator=bench.accelerator,
        progress=progress,
        provenance={"dataset": data.short_name, "backbone": model},
    )


def rank_on(
    bench: Bench,
    arm: Arm,
    model: nn.Module | None,
    *,
    seed: int,
    space: str,
    count: int = 64,
    clip_at: str | None = None,
    progress: Progress | None = None,
) -> Ranking:
    """Rank the clips of a space for the weights of a bare network, on the held-out images of a bench.

    They begin at the image, or at the place `clip_at` inside of the network.

    Raises:
        InputError: no weights, or no held-out images.
    """
    data = bench.data
    check_ranking(arm, weights=model is not None, held_out=data.holdout is not None)
    assert model is not None  # else the arm was refused
    assert data.holdout is not None
    return rank_genotypes(
        model,
        data.holdout,
        space=space,
        count=count,
        T=bench.clip.T,
        schedule=bench.clip.schedule,
        padding=bench.clip.padding,
        interpolation=bench.clip.interpolation,
        clip_at=clip_at,
        seed=seed,
        judge=0,  # the arm that is trained with the winner judges it
        mean=data.mean,
        std=data.std,
        progress=progress,
    )


def check_ranking(arm: Arm, *, weights: bool, held_out: bool) -> None:
    """Refuse an arm that ranks genotypes without trained weights, or without held-out images.

    Raises:
        InputError: one of them is missing.
    """
    if not weights:
        raise InputError(
            f"arm {arm.name!r} ranks genotypes for trained weights; it needs start=, the arm that has them"
        )
    if not held_out:
        raise InputError(
            f"arm {arm.name!r} ranks genotypes on held-out images, and there are none; set some aside with "
            "holdout above 0, or leave the arm out"
        )


class DemoGenotypes:
    """The genotypes of a demo's arms; the search runs once, a ranking once for every network that arms start from.

    Attributes:
        search_record: the search as the report reads it; None before it ran.
        rankings: the rankings by the run whose weights they were made for.
    """

    def __init__(
        self, config: DemoConfig, bench: Bench, folder: OutputDirectory, progress: Progress | None = None
    ) -> None:
        self._config, self._bench, self._folder, self._progress = config, bench, folder, progress
        found = folder.path / "search.json"
        self.search_record: dict[str, Any] | None = (
            read_record(found, needed=("genotype", "seconds")) if found.is_file() else None
        )
        rankings = sorted((folder.path / "rankings").glob("*.json"))
        self.rankings: dict[str, dict[str, Any]] = {
            path.stem: read_record(path, needed=("best", "seconds")) for path in rankings
        }

    def __call__(self, arm: Arm, seed: int, model: nn.Module) -> Chosen | None:
        """The genotype of `arm`; `model` is the bare network with the weights that the arm starts from."""
        return decided(
            arm,
            space=self._config.space,
            seed=seed,
            searched=lambda data: self._searched(arm, data),
            ranked=lambda: self._ranked(arm, seed, model),
        )

    def _searched(self, arm: Arm, data: str) -> Chosen:
        """The genotype of the search, which takes the first seed."""
        if data:
            raise InputError(
                f"arm {arm.name!r} got genotype={arm.genotype!r:.200}; a demo needs 'searched': it has one data set"
            )
        if self.search_record is None:
            self.search_record = self._search()
            atomic_write_json(self._folder / "search.json", self.search_record)
        return Chosen(Genotype.parse(self.search_record["genotype"]), "searched", self.search_record["seconds"])

    def _search(self) -> dict[str, Any]:
        config = self._config
        settings = SearchConfig(
            space=config.space,
            selection="perturbation",
            T=config.frames,
            fusion=config.fusion,
            residual=False,
            epochs=config.search_epochs,
            tune_epochs=config.tune_epochs,
            batch_size=config.batch_size,
            lr=config.search_lr,
            tau_lr=config.tau_lr,
            seed=config.seed,
        )
        progress = named(self._progress, "search")
        out = self._folder / "search"
        result = search_on(self._bench, settings, out, model=config.model, seed=config.seed, progress=progress)
        summary = result.summary()
        assert summary is not None  # a perturbation search has a cell
        return summary

    def _ranked(self, arm: Arm, seed: int, model: nn.Module) -> Chosen:
        """The genotype that is best for the weights of the run that an arm starts from."""
        start = f"{arm.start}-seed{seed}"
        if start not in self.rankings:
            self.rankings[start] = self._rank(arm, model, start)
            atomic_write_json(self._folder / "rankings" / f"{start}.json", self.rankings[start])
        record = self.rankings[start]
        return Chosen(Genotype.parse(record["best"]), "ranked", record["seconds"])

    def _rank(self, arm: Arm, model: nn.Module, start: str) -> dict[str, Any]:
        config = self._config
        ranking = rank_on(
            self._bench,
            arm,
            model,
            seed=config.seed,
            space=config.fixed_space,
            count=config.fixed_candidates,
            progress=named(self._progress, f"fixed weights, {start}"),
        )
        record = ranking.to_dict()
        record["entries"] = record["entries"][: ranking.finalists]
        return record | {"seconds": ranking.seconds, "sentence": ranking.sentence()}
