"""The searches of an assessment: chains, chains inside of the network, and sets of frames."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from image2video.assess.finalists import Finalist
from image2video.assess.places import places_to_try
from image2video.assess.scoring import Images, Network
from image2video.clip.genotype import Genotype
from image2video.clip.schedules import schedule_steps
from image2video.errors import Image2VideoError
from image2video.protocols import Progress, named
from image2video.search import Ranking, greedy_frames, rank_genotypes
from image2video.search.score.network import device_of
from image2video.search.space.space import SearchSpace

FEW = 4
"""The fewest candidates that a search is worth starting for."""
SEARCHES = 3
"""How many searches there are: each gets an equal share of the frames."""
FRAMES = (2, 3, 5)
SCHEDULES, PADDINGS = ("from_zero", "centred"), ("reflection", "zeros")
"""What a ranking chooses from, beside the chains and the averages."""
INSIDE = ("translate_x(1 cell) > translate_y(1 cell)", "flip_x")
"""Chains that are tried inside of a network, whatever was best at the image."""
_TRIED = 6
"""Chains of the ranking at the image that are tried inside of the network."""
_WITH_OPTIONS = 4
"""Those of them that are tried with every schedule and padding."""
_FIRST = 128
"""Images of the first round of a ranking."""


class Searches:
    """The searches on the images that choose.

    Args:
        network: the bare network.
        images: that choose.
        space: where candidates come from.
        seed: of their draws.
        max_cost: the most that an image may cost.
        count: candidates of each search.
        frames: how many frames all searches may look at together; None for no limit.
        progress: called as the work goes on.

    Attributes:
        looked: how many candidates have been looked at.
        notes: what could not be looked at, and why.
    """

    def __init__(
        self,
        network: Network,
        images: Images,
        space: SearchSpace | str,
        seed: int,
        max_cost: float,
        count: int,
        frames: int | None,
        progress: Progress | None,
    ) -> None:
        self._network, self._images, self._max_cost, self._progress = network, images, max_cost, progress
        self._count, self._frames = count, frames
        self._options: dict[str, Any] = {
            "space": space,
            "seed": seed,
            "judge": 0.0,
            "max_images": len(images),  # all of them: by itself a search reads 2000 of an iterable
            "batch_size": network.frames_at_once,
            "autocast": network.autocast,
            "mean": network.mean,
            "std": network.std,
        }
        self._chains: list[Genotype] = []
        self.looked = 0
        self.notes: list[str] = []

    def chain(self) -> Finalist | None:
        """The best chain over T, schedule, padding and average; None where the image itself is it.

        All chains are ranked with one schedule and one padding, and the best of them with every option: each option
        means other frames, and all options of all chains would cost some times as much.
        """
        numbers = [T for T in FRAMES if self._max_cost >= T]
        count = self._count
        if self._frames is not None:  # the first round of a ranking is whole, whatever it costs
            powers = {step for T in numbers for step in schedule_steps(SCHEDULES[0], T) if step}
            first = min(_FIRST, len(self._images)) * max(1, len(powers))
            count = min(count, self._frames // SEARCHES // 2 // first)
        if not numbers or count < FEW:
            return None
        ranking = self._ranked("chains", T=numbers, schedule=SCHEDULES[0], padding=PADDINGS[0], count=count, share=2)
        self.looked += len({entry.genotype for entry in ranking.entries})
        moving = [entry for entry in ranking.entries if not entry.is_still]
        self._chains = [
            chain for chain in dict.fromkeys(entry.genotype for entry in moving) if isinstance(chain, Genotype)
        ][:_TRIED]
        chains = self._chains[: self._with_options(numbers)]
        if chains:
            options = {"schedule": SCHEDULES, "padding": PADDINGS}
            ranking = self._ranked("options", T=numbers, candidates=chains, share=2, **options)
        return best_of("chain", "the best chain", ranking)

    def _with_options(self, numbers: list[int]) -> int:
        """How many chains are tried with every option: the first round of that ranking is whole too."""
        if self._frames is None:
            return _WITH_OPTIONS
        powers = {step for schedule in SCHEDULES for T in numbers for step in schedule_steps(schedule, T) if step}
        first = min(_FIRST, len(self._images)) * len(powers) * len(PADDINGS)
        return min(_WITH_OPTIONS, self._frames // SEARCHES // 2 // first)

    def inside(self) -> Finalist | None:
        """The best clip that begins inside of the network; None where the image itself is better.

        The chains are those that were best at the image, a shift by one cell, and the mirror image.
        """
        model = self._network.model
        try:
            places = places_to_try(model, self._images.images[:1].to(device_of(model)))
        except Image2VideoError as error:
            self.notes.append(f"Clips inside of the network were not looked at: {error}")
            return None
        names = [place.name for place in places if place.cost(2) <= self._max_cost]
        if not names:
            return None
        ranking = self._ranked(
            "inside",
            candidates=[chain for chain in (*self._chains, *map(Genotype.parse, INSIDE)) if chain.is_geometric],
            T=(2, 3),
            schedule=SCHEDULES[0],
            clip_at=names,
            batch_size=None,  # all frames of an image at a place go through the network at once
        )
        self.looked += len({(entry.genotype, entry.place) for entry in ranking.entries if entry.place is not None})
        return best_of("inside", "the best clip inside of the network", ranking)

    def _ranked(self, name: str, *, share: int = 1, **how: Any) -> Ranking:
        """A ranking on the images that choose; `share` rankings share the frames of one search."""
        options = self._options | how
        if "candidates" in how:
            del options["space"]
        return rank_genotypes(
            self._network.model,
            _Batches(self._images),
            aggregate=("mean", "mean_prob"),
            max_cost=self._max_cost,
            first_images=_FIRST,
            max_frames=None if self._frames is None else self._frames // SEARCHES // share,
            progress=named(self._progress, name),
            **options,
        )

    def frames(self) -> Finalist | None:
        """The best set of frames; None where the image itself is it."""
        count = self._count
        if self._frames is not None:
            count = max(FEW, min(count, self._frames // SEARCHES // len(self._images)))
        choice = greedy_frames(
            self._network.model,
            _Batches(self._images),
            count=count,
            T=int(self._max_cost),
            start="best",
            progress=named(self._progress, "frames"),
            **self._options,
        )
        self.looked += choice.candidates
        if choice.found_nothing:
            return None
        return Finalist.found("frames", "the best set of frames", choice.wrap_options(), choice.best.T)


def best_of(name: str, title: str, ranking: Ranking) -> Finalist | None:
    """The best clip of a ranking; None for the image itself."""
    entry = ranking.best_entry
    if entry.is_still or entry.cost is None:
        return None
    return Finalist.found(name, title, entry.wrap_options(), entry.cost)


class _Batches:
    """The images in batches, as often as they are asked for."""

    def __init__(self, images: Images) -> None:
        self._images = images

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self._images.batches(256)
