"""What a ranking compares: a chain, and everything else that decides the frames and their average."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from image2video.clip.checks import check_choice
from image2video.clip.genotype import Genotype
from image2video.clip.options import ClipOptions
from image2video.errors import InputError
from image2video.search.rank.places import LeftOut, Place, cost_of, place_name
from image2video.search.rank.same_frames import NOWHERE, SameFrames
from image2video.search.state.config import AVERAGES

Value = TypeVar("Value", int, str)


@dataclass(frozen=True)
class ClipCandidate:
    """A clip as a ranking sees it.

    Attributes:
        genotype: the chain.
        options: T, schedule, padding, interpolation and colours.
        aggregate: one of `AVERAGES`.
        frames: how many frames of an image are predicted.
        place: where the clip begins.
    """

    genotype: Genotype
    options: ClipOptions
    aggregate: str
    frames: int
    place: Place = None

    @property
    def cost(self) -> float:
        """Multiply-accumulates as a multiple of the image's: at the image the frames, inside of the network less."""
        return cost_of(self.place, self.frames)

    @classmethod
    def averaged(
        cls, genotype: Genotype, options: ClipOptions, aggregate: str = "mean", place: Place = None
    ) -> ClipCandidate:
        """A clip whose frames never mix: the identity is the bare network, at the cost of one frame."""
        if not genotype.chain:
            return cls(genotype, options, aggregate, 1)
        return cls(genotype, options, aggregate, options.T, place)

    @classmethod
    def mixed(cls, genotype: Genotype, options: ClipOptions) -> ClipCandidate:
        """A clip whose frames mix: the identity costs T frames too."""
        return cls(genotype, options, "mean", options.T)


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

    def __post_init__(self) -> None:
        several("T", self.T)
        several("schedule", self.schedule)
        several("padding", self.padding)
        for name in several("aggregate", self.aggregate):
            check_choice("aggregate", name, AVERAGES)

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """What costs more than `max_cost`: places with a number of frames, in the order of the network."""
        over = [
            (place, T) for place, T in self._asked() if self.max_cost is not None and cost_of(place, T) > self.max_cost
        ]
        return tuple(LeftOut(place_name(place), T, cost_of(place, T)) for place, T in over)

    def candidates(self, chains: Iterable[Genotype], like: ClipOptions) -> tuple[ClipCandidate, ...]:
        """All clips of the chains, the identity once and first; `like` has interpolation and colours.

        Clips that hold the same frames, in whatever order, are one clip; so are those that give the same frames at
        several places, which begin at the last one, the cheapest. Chains that change colours begin at the image alone.
        """
        places = [
            (place, T) for place, T in self._asked() if self.max_cost is None or cost_of(place, T) <= self.max_cost
        ]
        if not places:
            raise InputError(self._nothing_left())
        options = [
            (place, like.replace(T=T, schedule=schedule, padding=padding))
            for place, T in places
            for schedule in several("schedule", self.schedule)
            for padding in several("padding", self.padding)
        ]
        found = [ClipCandidate.averaged(Genotype.identity(), options[0][1])]
        seen: set[tuple[object, ...]] = set()
        for chain in chains:
            for place, clip in options if chain.chain else ():
                key = (chain, place, _frames(chain, clip))
                there = place is None or (chain.is_geometric and self.same.last(place, chain, clip) == place)
                if key not in seen and there:
                    seen.add(key)
                    found += [
                        ClipCandidate.averaged(chain, clip, average, place)
                        for average in several("aggregate", self.aggregate)
                    ]
        return tuple(found)

    def _asked(self) -> list[tuple[Place, int]]:
        """All places with all numbers of frames."""
        frames = several("T", self.T)
        inside = next((place for place in self.places if place is not None), None)
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
        return (
            f"max_cost={self.max_cost:g} leaves no clip of T = {self.T} at {len(self.places)} places; the cheapest is "
            f"{cheapest}: give a smaller T, a later place, or a larger max_cost (the image itself costs 1)"
        )


def _frames(chain: Genotype, clip: ClipOptions) -> tuple[tuple[str, str], ...]:
    """What the frames of a clip are, without their order: equal for clips of a chain whose frames are equal."""
    frames = []
    for step in clip.steps:
        axes = chain.mirrored(step) if chain.is_geometric else None
        # Padding shows in no frame that is the image or a mirror image of it.
        frames.append((str(step), clip.padding) if axes is None and step != 0 else (str(axes or ()), ""))
    return tuple(sorted(frames))


def several(name: str, given: Value | Sequence[Value]) -> list[Value]:
    """One value or several as a list."""
    values: list[Value] = [given] if isinstance(given, int | str) else list(given)
    if not values or len(set(values)) < len(values):
        raise InputError(f"{name} must be one value or several different ones, got {given!r:.80}")
    return values
