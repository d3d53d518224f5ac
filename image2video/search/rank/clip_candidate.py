"""What a ranking compares: a chain, and everything else that decides the frames and their average."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from image2video.clip.checks import check_choice
from image2video.clip.deep_clip import DeepClip
from image2video.clip.deep_video import DeepVideo
from image2video.clip.frame_set import FrameSet
from image2video.clip.genotype import Genotype
from image2video.clip.options import ClipOptions
from image2video.errors import InputError
from image2video.search.rank.places import LeftOut, Place, Together, cost_of, place_name
from image2video.search.rank.same_frames import NOWHERE, SameFrames
from image2video.settings.search import AVERAGES

Value = TypeVar("Value", int, str)

Chains = Genotype | DeepClip
"""What a ranking ranks: a chain, or a chain at each of several places."""


def transforms_of(clip: Chains) -> int:
    """Count the transforms of a clip, at all its places; none is the image itself."""
    chains = clip.clips if isinstance(clip, DeepClip) else (clip,)
    return sum(len(chain.chain) for chain in chains if isinstance(chain, Genotype))


@dataclass(frozen=True)
class ClipCandidate:
    """A clip as a ranking sees it.

    Attributes:
        genotype: the chain, or those at several places.
        options: T, schedule, padding, interpolation and colours.
        aggregate: one of `AVERAGES`.
        frames: how many frames of an image are predicted.
        place: where the clip begins, or all places at which it moves.
        shared: behind how many of several places frames that are the same up to there are one row.
    """

    genotype: Chains
    options: ClipOptions
    aggregate: str
    frames: int
    place: Place | Together = None
    shared: int = 0

    @property
    def chain(self) -> Genotype:
        """The chain of a clip that moves at one place."""
        assert isinstance(self.genotype, Genotype), "clips at several places have predictors of their own"
        return self.genotype

    @functools.cached_property  # kept as long as the candidate: a cache of the module would keep all plans
    def cost(self) -> float:
        """Multiply-accumulates as a multiple of the image's: at the image the frames, inside of the network less."""
        if isinstance(self.place, Together) and isinstance(self.genotype, DeepClip):
            rows = DeepVideo(self.genotype, self.options).frames_of_call(shared=self.shared).counts
            return self.place.plan.cost(self.options.T, rows)
        return cost_of(self.place, self.frames)

    @classmethod
    def averaged(
        cls, genotype: Chains, options: ClipOptions, aggregate: str = "mean", place: Place | Together = None
    ) -> ClipCandidate:
        """A clip whose frames never mix: the identity is the bare network, at the cost of one frame."""
        if transforms_of(genotype) == 0:
            still = genotype if isinstance(genotype, Genotype) else Genotype.identity()
            return cls(still, options, aggregate, 1)
        shared = place.plan.shared if isinstance(place, Together) else 0
        return cls(genotype, options, aggregate, options.T, place, shared)

    @classmethod
    def mixed(cls, genotype: Chains, options: ClipOptions, place: Together | None = None) -> ClipCandidate:
        """A clip whose frames mix: the identity costs T frames too."""
        return cls(genotype, options, "mean", options.T, place)


@dataclass(frozen=True)
class ClipChoices:
    """The options of clips that a ranking may choose from; each is one value or several.

    Args:
        T: frames per clip.
        schedule: powers of the frames.
        padding: what stands outside the image.
        aggregate: how logits are averaged.
        max_cost: the most that a clip costs, as a multiple of the image's multiply-accumulates (at the image the most
            frames).
        places: where clips may begin.
        same: at which of the places clips give the same frames.
        deep: clips that move at several places, with these places.

    Raises:
        InputError: no value, one that stands twice or is unknown, a clip of one frame inside of the network, or no clip
            within `max_cost`.
    """

    T: int | Sequence[int]
    schedule: str | Sequence[str]
    padding: str | Sequence[str]
    aggregate: str | Sequence[str]
    max_cost: float | None = None
    places: tuple[Place, ...] = (None,)
    same: SameFrames = NOWHERE
    deep: tuple[tuple[Together, tuple[DeepClip, ...]], ...] = ()

    def __post_init__(self) -> None:
        several("T", self.T)
        several("schedule", self.schedule)
        several("padding", self.padding)
        for name in several("aggregate", self.aggregate):
            check_choice("aggregate", name, AVERAGES)

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """What costs more than `max_cost`: places with a number of frames, in the order of the network.

        Of several places together that is what clips cost whose frames differ from the first one on.
        """
        asked = [*self._asked(), *((group, T) for group, _ in self.deep for T in several("T", self.T))]
        over = [(place, T) for place, T in asked if self.max_cost is not None and cost_of(place, T) > self.max_cost]
        return tuple(LeftOut(place_name(place), T, cost_of(place, T)) for place, T in over)

    def candidates(self, chains: Iterable[Genotype], like: ClipOptions) -> tuple[ClipCandidate, ...]:
        """All clips of the chains, the identity once and first; `like` has interpolation and colours.

        Clips that hold the same frames, in whatever order, are one clip; so are those that give the same frames at
        several places, which begin at the last one, the cheapest. Chains that change colours begin at the image alone.
        """
        places = [
            (place, T) for place, T in self._asked() if self.max_cost is None or cost_of(place, T) <= self.max_cost
        ]
        moving = self._deep_candidates(like)
        if not places and not moving and self.left_out:
            raise InputError(self._nothing_left())
        options = [
            (place, like.replace(T=T, schedule=schedule, padding=padding))
            for place, T in places
            for schedule in several("schedule", self.schedule)
            for padding in several("padding", self.padding)
        ]
        # Where no clip moves at all, what was asked for is the image.
        first = options[0][1] if options else moving[0].options if moving else self._options(like)[0]
        found = [ClipCandidate.averaged(Genotype.identity(), first)]
        seen: set[tuple[object, ...]] = set()
        for chain in chains:
            for place, clip in options if chain.chain else ():
                key = (chain, place, _frames((chain,), clip))
                there = place is None or (chain.is_geometric and self.same.last(place, chain, clip) == place)
                if key not in seen and there:
                    seen.add(key)
                    found += [
                        ClipCandidate.averaged(chain, clip, average, place)
                        for average in several("aggregate", self.aggregate)
                    ]
        return tuple(found + moving)

    def _deep_candidates(self, like: ClipOptions) -> list[ClipCandidate]:
        """All clips at several places that cost no more than `max_cost`."""
        options = self._options(like)
        found: list[ClipCandidate] = []
        seen: set[tuple[object, ...]] = set()
        for group, clips in self.deep:
            for clip in clips:
                for how in options:
                    key = (clip, group.name, _frames(clip.clips, how))
                    one = ClipCandidate.averaged(clip, how, place=group)
                    too_much = self.max_cost is not None and one.cost > self.max_cost
                    if key not in seen and not too_much and transforms_of(clip):
                        seen.add(key)
                        averages = several("aggregate", self.aggregate)
                        found += [ClipCandidate.averaged(clip, how, average, group) for average in averages]
        return found

    def _options(self, like: ClipOptions) -> list[ClipOptions]:
        """All options of clips at several places."""
        return [
            like.replace(T=T, schedule=schedule, padding=padding)
            for T in several("T", self.T)
            for schedule in several("schedule", self.schedule)
            for padding in several("padding", self.padding)
        ]

    def _asked(self) -> list[tuple[Place, int]]:
        """All places with all numbers of frames."""
        frames = several("T", self.T)
        groups = [group for group, _ in self.deep]
        inside = next((place for place in (*self.places, *groups) if place is not None), None)
        if inside is not None and min(frames) < 2:
            raise InputError(
                f"a clip inside of the network ({inside.name!r}) has 2 frames or more, got T={min(frames)}; leave that "
                "out, or let clips begin at the image alone"
            )
        return [(place, T) for place in self.places for T in frames]

    def _nothing_left(self) -> str:
        """Say that everything costs too much."""
        if self.places == (None,):
            return (
                f"max_cost={self.max_cost:g} frames leaves no clip of T = {self.T}; give a smaller T, or a max_cost of "
                "at least 2 (the image itself costs 1)"
            )
        cheapest = min(self.left_out, key=lambda clip: clip.cost)
        count = len(self.places) + len(self.deep)
        places = f"{count} places or lists of places" if self.deep else f"{count} places"
        return (
            f"max_cost={self.max_cost:g} leaves no clip of T = {self.T} at {places}; the cheapest is "
            f"{cheapest}: give a smaller T, a later place, or a larger max_cost (the image itself costs 1)"
        )


def _frames(chains: Sequence[Genotype | FrameSet], clip: ClipOptions) -> tuple[tuple[tuple[str, str], ...], ...]:
    """What the frames of a clip are, without their order: equal for clips of the same chains whose frames are equal."""
    return tuple(sorted(tuple(_frame(chain, step, clip.padding) for chain in chains) for step in clip.steps))


def _frame(chain: Genotype | FrameSet, step: float, padding: str) -> tuple[str, str]:
    """What a chain does at one power."""
    axes = chain.mirrored(step) if chain.is_geometric else None
    # Padding shows in no frame that is the image or a mirror image of it.
    return (str(step), padding) if axes is None and step != 0 else (str(axes or ()), "")


def several(name: str, given: Value | Sequence[Value]) -> list[Value]:
    """One value or several as a list."""
    values: list[Value] = [given] if isinstance(given, int | str) else list(given)
    if not values or len(set(values)) < len(values):
        raise InputError(f"{name} must be one value or several different ones, got {given!r:.80}")
    return values
