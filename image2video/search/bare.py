"""A search that trains nothing: the backbone as it is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from image2video.errors import StateError
from image2video.protocols import ImageSet
from image2video.search.rank.clip_candidate import Chains
from image2video.search.rank.fixed_weights import rank_genotypes
from image2video.search.rank.frame_choice import FrameChoice
from image2video.search.rank.greedy_frames import greedy_frames
from image2video.search.rank.places import ALL, alone, check_places, find_places, plan_places, together
from image2video.search.rank.ranking import Ranking
from image2video.search.score.scores import Scores
from image2video.search.setup import Setup
from image2video.search.space.deep_space import DeepSpace
from image2video.search.space.space import SearchSpace
from image2video.search.state.state import SearchState
from image2video.settings.search import AVERAGES
from image2video.trace.places import IMAGE

Found = TypeVar("Found", Ranking, FrameChoice)
_PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


class BareRun:
    """A run without a trained network: it can rank chains for the backbone, or choose frames; see `selection.Run`.

    Args:
        backbone: the bare network; it stays as it is.
        images: the images to rank on.
        setup: the search.
        provenance: JSON values for the genotype's provenance.

    Attributes:
        ranking: the last ranking; its best chain says how it was found.
        frame_choice: the last choice of frames; its best set says how it was found.
    """

    def __init__(self, backbone: nn.Module, images: ImageSet, setup: Setup, provenance: dict[str, Any]) -> None:
        self.space, self.config, self.state = setup.space, setup.config, SearchState()
        self.ranking: Ranking | None = None
        self.frame_choice: FrameChoice | None = None
        self._backbone, self._images, self._setup, self._provenance = backbone, images, setup, provenance

    def check_places(self) -> None:
        """Raise `InputError` where no clip can begin at a place of the settings; `all` places are those that can."""
        names = check_places(self.config.clip_at)
        if names in ((IMAGE,), (ALL,)):
            return
        example = next(iter(self._images.batches(1, device=self._setup.accelerator.device).epoch(0)))[0]
        if alone(names) not in ((), (IMAGE,), (ALL,)):
            find_places(self._backbone_there(), alone(names), example, self._setup.task)
        for places in together(names):
            assert isinstance(self.space, SearchSpace), "each place has chains of its own"
            DeepSpace(self.space, places)
            plan_places(self._backbone_there(), self._setup.task, places, example)

    def rank(self, chains: tuple[Chains, ...]) -> Ranking:
        """Rank chains for the backbone as it is, by `rank_genotypes`."""
        config, setup, options = self.config, self._setup, self._setup.options
        ranking = rank_genotypes(
            self._backbone_there(),
            self._images,
            candidates=chains,
            seed=config.seed,
            first_images=config.first_images,
            max_images=config.validation_images,
            max_seconds=None if config.max_minutes is None else 60 * config.max_minutes,
            max_frames=None if config.max_images is None else config.max_images * config.T,
            batch_size=config.batch_size * config.T,
            autocast=_PRECISIONS.get(setup.accelerator.mixed_precision),
            task=setup.task,
            provenance=self._provenance,
            progress=setup.progress,
            max_cost=config.max_cost,
            clip_at=alone(check_places(config.clip_at)) or None,
            aggregate=config.choose_aggregate or "mean",
            **{
                **options.arguments(),
                "T": config.choose_frames or options.T,
                "schedule": config.choose_schedule or options.schedule,
                "padding": config.choose_padding or options.padding,
            },
        )
        ranking = self._of_all(ranking)
        record = {**(ranking.best.provenance or {}), "selection": config.selection, "space": self.space.name}
        self.ranking = replace(ranking, best=ranking.best.with_provenance(record))
        self.state.ranking = ranking.to_dict()
        self.state.frames += ranking.frames
        self.state.seconds += ranking.seconds
        return self.ranking

    def choose_frames(self) -> FrameChoice:
        """Choose a set of frames for the backbone as it is, by `greedy_frames`."""
        config, setup, options = self.config, self._setup, self._setup.options
        assert isinstance(self.space, SearchSpace), "frames are chosen at the image"
        choice = greedy_frames(
            self._backbone_there(),
            self._images,
            space=self.space,
            count=config.candidates,
            T=config.T,
            aggregate=config.choose_aggregate or AVERAGES,
            max_cost=config.max_cost,
            max_images=config.validation_images,
            seed=config.seed,
            padding=options.padding,
            interpolation=options.interpolation,
            autocast=_PRECISIONS.get(setup.accelerator.mixed_precision),
            task=setup.task,
            mean=options.mean,
            std=options.std,
            provenance=self._provenance,
            progress=setup.progress,
        )
        self.frame_choice = self._of_all(choice)
        self.state.frames += choice.evaluated
        self.state.seconds += choice.seconds
        return self.frame_choice

    def _of_all(self, found: Found) -> Found:
        """What the first process found, on all of them."""
        if self._setup.accelerator.num_processes > 1:
            # Every process has scored all images; on a GPU the last digits may differ, the choice must not.
            (found,) = broadcast_object_list([found])
        return found

    def tau(self) -> Tensor:
        """Refuse: there is no cell."""
        raise self._untrained("τ")

    def score(self, mixings: list[Tensor], first: int, stop: Callable[[Scores], bool] | None = None) -> Scores:
        """Refuse: there is no cell."""
        raise self._untrained("scores of the cell")

    def snapshot(self) -> None:
        """Refuse: there is nothing that training could change."""
        raise self._untrained("snapshot")

    def restore(self) -> None:
        """Refuse: there is nothing that training could change."""
        raise self._untrained("snapshot")

    def spent(self) -> float:
        """Nothing is spent beside a ranking, which keeps to the budget itself."""
        return 0.0

    def _untrained(self, what: str) -> StateError:
        """The error of a selection that asks for what only training makes."""
        name = self.config.selection
        return StateError(f"selection={name!r} trains no network, so there is no {what}; it needs trains=True")

    def _backbone_there(self) -> nn.Module:
        """The backbone on the accelerator's device; a copy where it is elsewhere."""
        device = self._setup.accelerator.device
        tensors = [*self._backbone.parameters(), *self._backbone.buffers()]
        if all(tensor.device == device for tensor in tensors):
            return self._backbone
        return copy.deepcopy(self._backbone).to(device)
