"""What a ranking compares: a chain, and everything else that decides the frames and their average."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from image2video.clip.checks import check_choice
from image2video.clip.genotype import Genotype
from image2video.clip.options import ClipOptions
from image2video.errors import InputError
from image2video.search.state.config import AVERAGES

Value = TypeVar("Value", int, str)


@dataclass(frozen=True)
class ClipCandidate:
    """A clip as a ranking sees it.

    Attributes:
        genotype: the chain.
        options: T, schedule, padding, interpolation and colours.
        aggregate: one of `AVERAGES`.
        cost: frames that go through the network per image.
    """

    genotype: Genotype
    options: ClipOptions
    aggregate: str
    cost: int

    @classmethod
    def averaged(cls, genotype: Genotype, options: ClipOptions, aggregate: str = "mean") -> ClipCandidate:
        """A clip whose frames never mix: the identity is the bare network, at the cost of one frame."""
        return cls(genotype, options, aggregate, options.T if genotype.chain else 1)

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
        max_cost: the most frames per image.

    Raises:
        InputError: no value, one that stands twice or is unknown, or no T within `max_cost`.
    """

    T: int | Sequence[int]
    schedule: str | Sequence[str]
    padding: str | Sequence[str]
    aggregate: str | Sequence[str]
    max_cost: float | None = None

    def candidates(self, chains: Iterable[Genotype], like: ClipOptions) -> tuple[ClipCandidate, ...]:
        """All clips of the chains, the identity once and first; `like` has interpolation and colours.

        Clips that hold the same frames, in whatever order, are one clip.
        """
        averages = [check_choice("aggregate", name, AVERAGES) for name in several("aggregate", self.aggregate)]
        frames = [T for T in several("T", self.T) if self.max_cost is None or self.max_cost >= T]
        if not frames:
            raise InputError(
                f"max_cost={self.max_cost:g} frames leaves no clip of T = {self.T}; give a smaller T, or a max_cost of "
                "at least 2 (the image itself costs 1)"
            )
        options = [
            like.replace(T=T, schedule=schedule, padding=padding)
            for T in frames
            for schedule in several("schedule", self.schedule)
            for padding in several("padding", self.padding)
        ]
        found = [ClipCandidate.averaged(Genotype.identity(), options[0])]
        seen: set[tuple[object, ...]] = set()
        for chain in chains:
            for clip in options if chain.chain else ():
                key = (chain, _frames(chain, clip))
                if key not in seen:
                    seen.add(key)
                    found += [ClipCandidate.averaged(chain, clip, average) for average in averages]
        return tuple(found)


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
