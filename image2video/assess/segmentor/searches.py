"""The searches of an assessment of a segmentor: single frames, chains, and chains inside of its backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from image2video.assess.finalists import Finalist
from image2video.assess.places import places_to_try
from image2video.assess.searches import FEW, FRAMES, INSIDE, PADDINGS, SCHEDULES, best_of
from image2video.clip.genotype import Genotype
from image2video.clip.schedules import schedule_steps
from image2video.errors import Image2VideoError
from image2video.fusion.registry import resolve_fusion
from image2video.inject.clip_site import ClipSite
from image2video.protocols import Progress, named
from image2video.search import Ranking, rank_genotypes
from image2video.search.rank.candidates import candidate_frames
from image2video.search.score.network import device_of, macs_per_frame
from image2video.search.space.space import SearchSpace, get_space

if TYPE_CHECKING:  # mmsegmentation takes seconds to import, and may not be there
    from image2video.integrations.openmmlab.own_images import OwnImages
    from image2video.integrations.openmmlab.trained import TrainedSegmentor

SEARCHES = 4
"""How many rankings there are: each gets an equal share of the frames."""
FIRST = 16
"""Images of the first round of a ranking: one has thousands of pixels."""
_WITH_OPTIONS = 2
"""Chains that are tried with every schedule and padding: clips share no maps, so that each costs all of its own."""
_MOST_MAPS = 1 << 26
"""Numbers of the maps that go through at once: 256 MiB."""
_MOST_FRAMES = 32
_LOOKED_AT = 4
"""Images that say how large they are."""


class PixelSearches:
    """The searches on the images that choose.

    Args:
        segmentor: with its task.
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
        segmentor: TrainedSegmentor,
        images: OwnImages,
        space: SearchSpace | str,
        seed: int,
        max_cost: float,
        count: int,
        frames: int | None,
        progress: Progress | None,
    ) -> None:
        self._segmentor, self._images, self._max_cost, self._progress = segmentor, images, max_cost, progress
        self._space = space if isinstance(space, SearchSpace) else get_space(space)
        self._count, self._frames, self._seed = count, frames, seed
        self._example: Tensor = next(images.batches(1, device=device_of(segmentor.network)).epoch(0))[0]
        self._at_once = frames_at_once(images, segmentor.task.num_classes)
        self._chains: list[Genotype] = []
        self._costs: dict[str, float] = {}
        self.looked = 0
        self.notes: list[str] = []

    def frame(self) -> Finalist | None:
        """The best single frame, which costs as much as the image; None where the image itself is it."""
        count = self._affordable(self._count, 1)
        if count < FEW:
            return None
        drawn = candidate_frames(self._space, count, self._seed)
        ranking = self._ranked("frames", candidates=drawn, T=1, schedule="ramp")
        self._remember(ranking)
        return best_of("frame", "the best single frame", ranking)

    def chain(self) -> Finalist | None:
        """The best chain over T, schedule and padding; None where the image itself is it.

        All chains are ranked with two frames, and the best of them, with the best single frames, with every option.
        """
        numbers = [T for T in FRAMES if self._max_cost >= T]
        if not numbers:
            return None
        found = None
        count = self._affordable(self._count, 2)
        if count >= FEW:
            ranking = self._ranked("chains", space=self._space, count=count, T=2, schedule=SCHEDULES[0])
            self._remember(ranking)
            found = best_of("chain", "the best chain", ranking)
        per_chain = len(PADDINGS) * sum(
            sum(step != 0 for step in schedule_steps(schedule, T)) for schedule in SCHEDULES for T in numbers
        )
        chains = self._chains[: self._affordable(_WITH_OPTIONS, per_chain)]
        if not chains:
            return found
        options = {"schedule": SCHEDULES, "padding": PADDINGS}
        return best_of("chain", "the best chain", self._ranked("options", candidates=chains, T=numbers, **options))

    def inside(self) -> Finalist | None:
        """The best clip that begins inside of the backbone; None where the image itself is better, or no place is.

        The chains are those that were best at the image, a shift by one cell, and the mirror image.
        """
        try:
            places = self._places()
        except Image2VideoError as error:
            self.notes.append(f"Clips inside of the backbone were not looked at: {error}")
            return None
        if not places:
            return None
        chains = [chain for chain in self._chains[:_WITH_OPTIONS] if chain.is_geometric]
        chains += [Genotype.parse(text) for text in INSIDE]
        chains = chains[: self._affordable(len(chains), 2 * len(places))]
        if not chains:
            return None
        names = [place.name for place in places]
        ranking = self._ranked("inside", candidates=chains, T=2, schedule=SCHEDULES[0], clip_at=names)
        self.looked += len({(entry.genotype, entry.place) for entry in ranking.entries if entry.place is not None})
        entry = ranking.best_entry
        if entry.is_still:
            return None
        (place,) = [place for place in places if place.name == entry.place]
        return Finalist.found(
            "inside", "the best clip inside of the backbone", entry.wrap_options(), self._costs[place.name]
        )

    def _places(self) -> list[ClipSite]:
        """Places of the backbone that lead past no head and that two frames from there on do not cost too much at."""
        segmentor, example = self._segmentor, self._example
        backbone = segmentor.task.part(segmentor.network)
        _, channels, height, width = example.shape
        with torch.no_grad():
            whole, own = (macs_per_frame(part, example) for part in (segmentor.network, backbone))
        found, why = [], None
        for place in places_to_try(backbone, example):
            try:
                segmentor.task.plan_at(
                    segmentor.network, resolve_fusion("none"), (channels, height, width), (place.name,)
                )
            except Image2VideoError as error:
                why = error
                continue
            # Heads come behind every place, and cost as often as what lies between.
            cost = 1 + (place.share_after * own + whole - own) / whole
            if cost <= self._max_cost:
                found.append(place)
                self._costs[place.name] = cost
        if not found and why is not None:
            self.notes.append(f"Clips inside of the backbone were not looked at: {why}")
        return found

    def _affordable(self, count: int, frames: int) -> int:
        """How many of `count` candidates of so many frames may be looked at: a first round is whole."""
        if self._frames is None:
            return count
        first = min(FIRST, self._images.num_images) * frames
        return min(count, self._frames // SEARCHES // first)

    def _ranked(self, name: str, **how: Any) -> Ranking:
        """A ranking on the images that choose."""
        prepare = self._images.prepare
        return rank_genotypes(
            self._segmentor.network,
            self._images,
            task=self._segmentor.task,
            seed=self._seed,
            judge=0.0,
            first_images=FIRST,
            max_cost=self._max_cost,
            max_frames=None if self._frames is None else self._frames // SEARCHES,
            batch_size=self._at_once,
            mean=[value / 255 for value in prepare.mean],
            std=[value / 255 for value in prepare.std],
            progress=named(self._progress, name),
            **how,
        )

    def _remember(self, ranking: Ranking) -> None:
        """Count what was looked at, and keep the chains that were best."""
        self.looked += len({entry.genotype for entry in ranking.entries})
        own = [entry for entry in ranking.entries if not entry.is_still]
        known = _chains(self._chains)
        best = _chains([entry.genotype for entry in own])[:_WITH_OPTIONS]
        self._chains = list(dict.fromkeys([*best, *known]))[: 2 * _WITH_OPTIONS]


def frames_at_once(images: OwnImages, classes: int) -> int:
    """How many frames go through a segmentor at once, by the size of the first images and of their labels.

    Labels may be larger than what the segmentor sees, and its logits are brought to their size.
    """
    few = images.at(images.index[:_LOOKED_AT]).batches(1).epoch(0)
    pixels = max(max(one.shape[-2] * one.shape[-1] for one in sample) for sample in few)
    return max(1, min(_MOST_FRAMES, _MOST_MAPS // (classes * pixels)))


def _chains(clips: Sequence[object]) -> list[Genotype]:
    return [clip for clip in clips if isinstance(clip, Genotype)]
