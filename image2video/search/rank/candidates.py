"""The chains that a ranking compares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from image2video.clip.deep_clip import DeepClip
from image2video.clip.deep_text import is_deep_text
from image2video.clip.genotype import Genotype
from image2video.errors import InputError
from image2video.search.cell.topology import found_clip, random_decisions, random_genotype
from image2video.search.rank.averaging import matrix_key
from image2video.search.rank.clip_candidate import Chains
from image2video.search.rank.places import Names, alone, together
from image2video.search.space.deep_space import DeepSpace
from image2video.search.space.space import SearchSpace

_DRAWS_IN_VAIN = 200  # then the space is taken to hold no further chain
_ONE_POWER = (1.0,)  # of a frame, whose chain is applied once
_TWO_POWERS = (1.0, 2.0)


def candidate_chains(space: SearchSpace, count: int, seed: int) -> tuple[Genotype, ...]:
    """Draw chains of a space that give different frames.

    The identity comes first, then single steps up to half of `count`, then random chains. Of chains with the same
    frames the first one stays.

    Args:
        space: candidates and graph.
        count: how many, the identity included.
        seed: of the draw.

    Returns:
        The chains; fewer where the space has no more.

    Raises:
        InputError: a count below 1.
    """
    generator = _generator(count, seed)
    singles = _singles(space, count // 2, generator)
    return _filled([Genotype.identity(), *singles], space, count, generator, _TWO_POWERS)


def candidate_deep_clips(space: DeepSpace, count: int, seed: int) -> tuple[DeepClip, ...]:
    """Draw clips at several places that give different frames.

    Identities at all places come first, then single steps at one place, up to half of `count`, then random chains at
    all places, as the cells there would give them. Of clips with the same frames the first one stays.

    Args:
        space: candidates, graph and places.
        count: how many, the identities included.
        seed: of the draw.

    Returns:
        The clips, all of them at all places of the space; fewer where it has no more.

    Raises:
        InputError: a count below 1.
    """
    generator = _generator(count, seed)
    still = Genotype.identity()
    singles = [
        DeepClip(tuple((name, step if name == place else still) for name in space.places))
        for place in space.places
        for step in space.candidates
        if step.chain
    ]
    drawn = torch.randperm(len(singles), generator=generator)[: count // 2].sort().values.tolist()
    found: dict[object, DeepClip] = {}
    for clip in [DeepClip(tuple((name, still) for name in space.places)), *(singles[i] for i in drawn)]:
        found.setdefault(_deep_key(clip), clip)
    in_vain = 0
    while len(found) < count and in_vain < _DRAWS_IN_VAIN:
        drawn_clip = found_clip(random_decisions(space, generator), space)
        assert isinstance(drawn_clip, DeepClip), "the space has places"
        key = _deep_key(drawn_clip)
        in_vain = in_vain + 1 if key in found else 0
        found.setdefault(key, drawn_clip)
    return tuple(found.values())[:count]


def drawn_clips(space: SearchSpace, names: Names, count: int, seed: int) -> tuple[Chains, ...]:
    """Draw what a ranking for a trained network compares: `count` chains, and as many clips of places together.

    Args:
        space: candidates and graph of one place.
        names: where clips may begin, and at which places together they may move.
        count: how many of each, the identity included.
        seed: of the draws.

    Returns:
        The chains, which all begin at all places that are named alone, the identity first; then clips that move at
        several places. One that moves at a single place that is named alone too is a chain there, and is left out.

    Raises:
        InputError: a count below 1, or candidates that change colours inside of a network.
    """
    single = alone(names)
    chains = candidate_chains(space, count, seed) if single else (Genotype.identity(),)
    clips: list[DeepClip] = []
    for places in together(names):
        for clip in candidate_deep_clips(DeepSpace(space, places), count, seed):
            moving = [place for place, chain in clip.sites if chain != Genotype.identity()]
            if moving and not (len(moving) == 1 and moving[0] in single):
                clips.append(clip)
    return (*chains, *clips)


def split_clips(candidates: Sequence[Genotype | DeepClip | str]) -> tuple[tuple[Genotype, ...], tuple[DeepClip, ...]]:
    """The chains that a caller gives, the identity first, and the clips at several places, each once.

    Raises:
        InputError: no candidate, or a frame set at a place.
    """
    clips = [DeepClip.parse(one) if isinstance(one, str) and is_deep_text(one) else one for one in candidates]
    deep = [clip.with_provenance(None) for clip in clips if isinstance(clip, DeepClip)]
    for clip in deep:
        if clip.is_set:
            raise InputError(f"a ranking compares chains, got frame sets at places: {str(clip)!r:.200}; give chains")
    others = [clip for clip in clips if not isinstance(clip, DeepClip)]
    chains = given_chains(others) if others or not deep else (Genotype.identity(),)
    return chains, tuple(dict.fromkeys(deep))


def candidate_frames(space: SearchSpace, count: int, seed: int) -> tuple[Genotype, ...]:
    """Draw chains of a space that give different frames when each is applied once.

    The identity comes first, then all single steps of the space, then, where the space has `flip_x`, these again
    mirrored, then random chains as the space's cell would give them. Where `count` is smaller than the number of single
    steps, so many of them are drawn. Of chains that give the same frame the first one stays.

    Args:
        space: candidates and graph.
        count: how many, the identity included.
        seed: of the draws.

    Returns:
        The chains; fewer where the space has no more.

    Raises:
        InputError: a count below 1.
    """
    flip = Genotype.parse("flip_x")
    singles = _singles(space, count - 1, _generator(count, seed))
    mirrored = [Genotype((*single.chain, *flip.chain)) for single in singles] if flip in space.candidates else []
    return _filled([Genotype.identity(), *singles, *mirrored], space, count, _generator(count, seed), _ONE_POWER)


def given_frames(candidates: Sequence[Genotype | str]) -> tuple[Genotype, ...]:
    """The chains that a caller gives, those of equal frames once, the identity first; `InputError` for none."""
    return tuple(_different(given_chains(candidates), _ONE_POWER).values())


def given_chains(candidates: Sequence[Genotype | str]) -> tuple[Genotype, ...]:
    """The chains that a caller gives, each once, without provenance, the identity first; `InputError` for none."""
    chains = [Genotype.coerce(candidate).with_provenance(None) for candidate in candidates]
    if not chains:
        raise InputError("candidates is empty; give at least one genotype, or leave it out to draw from the space")
    return tuple(dict.fromkeys([Genotype.identity(), *chains]))


def _generator(count: int, seed: int) -> torch.Generator:
    """The generator of a draw of `count` candidates; `InputError` for none."""
    if count < 1:
        raise InputError(f"the number of candidates must be at least 1, got {count}")
    return torch.Generator().manual_seed(seed)


def _singles(space: SearchSpace, most: int, generator: torch.Generator) -> list[Genotype]:
    """The single steps of a space, or so many that are drawn, in the order of the space."""
    singles = [candidate for candidate in space.candidates if candidate.chain]
    drawn = torch.randperm(len(singles), generator=generator)[:most].sort().values.tolist()
    return [singles[i] for i in drawn]


def _different(chains: Iterable[Genotype], powers: Sequence[float]) -> dict[tuple[object, ...], Genotype]:
    """Chains by their frames at some powers; of those that give the same frames the first one."""
    found: dict[tuple[object, ...], Genotype] = {}
    for chain in chains:
        found.setdefault(frames_key(chain, powers), chain)
    return found


def _filled(
    chains: Iterable[Genotype], space: SearchSpace, count: int, generator: torch.Generator, powers: Sequence[float]
) -> tuple[Genotype, ...]:
    """`count` chains that differ: the given ones first, then random ones, as many as the space has."""
    found = _different(chains, powers)
    in_vain = 0
    while len(found) < count and in_vain < _DRAWS_IN_VAIN:
        chain = random_genotype(space, generator)
        key = frames_key(chain, powers)
        in_vain = in_vain + 1 if key in found else 0
        found.setdefault(key, chain)
    return tuple(found.values())[:count]


def _deep_key(clip: DeepClip) -> tuple[object, ...]:
    """Equal for clips at the same places whose chains give the same frames there."""
    return tuple(frames_key(chain) for chain in clip.clips if isinstance(chain, Genotype))


def frames_key(chain: Genotype, powers: Sequence[float] = _TWO_POWERS) -> tuple[object, ...]:
    """Equal for chains that give the same frames at some powers, whatever the size of the image.

    Chains that agree at two powers agree at all, so that the schedule does not matter.
    """
    key: list[object] = []
    for run in chain.runs():
        if run.is_geometric:
            # Powers and an image of two different sizes each, so that no two ops agree by chance. Cells agree with
            # fractions at one size.
            sizes = ((100, 130), (110, 150)) if run.has_cells else ((100, 130),)
            for size in sizes:
                for matrix in run.step_matrices(powers, *size):
                    key += matrix_key(matrix)
        else:
            key.append(str(run))
    if not key:  # the identity has no run, and the frames of any chain that moves nothing
        key += len(powers) * matrix_key(torch.eye(3))
    return tuple(key)
