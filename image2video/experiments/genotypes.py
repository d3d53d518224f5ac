"""Where the genotype of an arm comes from: a text, a draw, the search, or a ranking for given weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from accelerate import Accelerator
from torch import nn

from image2video.clip.genotype import Genotype
from image2video.data import DataSource, seeded_generator
from image2video.experiments.arms import Arm
from image2video.experiments.config import DemoConfig
from image2video.protocols import Progress
from image2video.runs.folders import OutputDirectory, atomic_write_json, read_json
from image2video.search import SearchConfig, get_space, random_genotype, rank_genotypes, search


class Chooser(Protocol):
    """What a comparison asks for the genotypes of its arms."""

    search_record: dict[str, Any] | None
    """The search as the report reads it; None where none ran."""
    rankings: dict[str, dict[str, Any]]
    """Rankings for trained weights, by the start that they were made for."""

    def choose(self, arm: Arm, seed: int, model: nn.Module) -> Genotype | None:
        """The genotype of `arm` for `seed`; `model` is the bare network with the weights that the arm starts from."""
        ...


class StatedGenotypes:
    """Genotypes that the arms state themselves; nothing is searched for."""

    def __init__(self) -> None:
        self.search_record: dict[str, Any] | None = None
        self.rankings: dict[str, dict[str, Any]] = {}

    def choose(self, arm: Arm, seed: int, model: nn.Module) -> Genotype | None:
        """The arm's text as a genotype; None for the bare network."""
        return None if arm.genotype == "none" else Genotype.parse(arm.genotype)


class GenotypeChooser:
    """Chooses genotypes on training and held-out images alone; the search runs once, a ranking once per start."""

    search_record: dict[str, Any] | None
    """The search as the report reads it; None before it ran."""

    def __init__(
        self,
        config: DemoConfig,
        data: DataSource,
        folder: OutputDirectory,
        accelerator: Accelerator,
        network: Callable[[int], nn.Module],
        progress: Progress | None = None,
    ) -> None:
        self._config, self._data, self._folder = config, data, folder
        self._accelerator, self._network, self._progress = accelerator, network, progress
        found = folder.path / "search.json"
        self.search_record = read_json(found) if found.is_file() else None
        rankings = sorted((folder.path / "rankings").glob("*.json"))
        self.rankings: dict[str, dict[str, Any]] = {path.stem: read_json(path) for path in rankings}

    def choose(self, arm: Arm, seed: int, model: nn.Module) -> Genotype | None:
        """The genotype of `arm` for `seed`; `model` is the bare network with the weights that the arm starts from."""
        if arm.genotype == "none":
            return None
        if arm.genotype == "random":
            return random_genotype(get_space(self._config.space), seeded_generator(seed))
        if arm.genotype == "searched":
            return self._searched()
        if arm.genotype == "fixed_weights":
            return self._ranked(f"{arm.start}-seed{seed}", model)
        return Genotype.parse(arm.genotype)

    def _searched(self) -> Genotype:
        """The genotype of the bilevel search, which runs once, with the first seed."""
        if self.search_record is None:
            self.search_record = self._search()
            atomic_write_json(self._folder / "search.json", self.search_record)
        return Genotype.parse(self.search_record["genotype"])

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
        result = search(
            self._network(config.seed),
            self._data.train,
            settings,
            validation=self._data.holdout,
            mean=self._data.mean,
            std=self._data.std,
            out=self._folder / "search",
            resume=True,
            accelerator=self._accelerator,
            progress=self._named("search"),
            provenance={"dataset": self._data.short_name, "backbone": config.model},
        )
        summary = result.summary()
        assert summary is not None  # a perturbation search has a cell
        return summary

    def _ranked(self, start: str, model: nn.Module) -> Genotype:
        """The genotype that a ranking on the held-out images gives the weights of `start`."""
        if start not in self.rankings:
            self.rankings[start] = self._rank(start, model)
            atomic_write_json(self._folder / "rankings" / f"{start}.json", self.rankings[start])
        return Genotype.parse(self.rankings[start]["best"])

    def _rank(self, start: str, model: nn.Module) -> dict[str, Any]:
        config = self._config
        assert self._data.holdout is not None  # DemoConfig refuses holdout=0
        ranking = rank_genotypes(
            model,
            self._data.holdout,
            space=config.fixed_space,
            count=config.fixed_candidates,
            T=config.frames,
            schedule=config.schedule,
            seed=config.seed,
            mean=self._data.mean,
            std=self._data.std,
            progress=self._named(f"fixed weights, {start}"),
        )
        record = ranking.to_dict()
        record["entries"] = record["entries"][: ranking.finalists]
        return record | {"seconds": ranking.seconds, "sentence": ranking.sentence()}

    def _named(self, name: str) -> Progress | None:
        progress = self._progress
        if progress is None:
            return None

        def report(stage: str, done: int, total: int, **figures: float) -> None:
            progress(f"{name}: {stage}", done, total, **figures)

        return report
