"""The chains that a ranking compares."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from image2video.clip.genotype import Genotype
from image2video.errors import InputError
from image2video.search.cell.topology import random_genotype
from image2video.search.rank.averaging import matrix_key
from image2video.search.space.space import SearchSpace

_DRAWS_IN_VAIN = 200  # then the space is taken to hold no further chain


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
    if count < 1:
        raise InputError(f"the number of candidates must be at least 1, got {count}")
    generator = torch.Generator().manual_seed(seed)
    singles = [candidate for candidate in space.candidates if candidate.chain]
    drawn = torch.randperm(len(singles), generator=generator)[: count // 2].sort().values.tolist()
    chains = {frames_key(chain): chain for chain in [Genotype.identity(), *(singles[i] for i in drawn)]}
    in_vain = 0
    while len(chains) < count and in_vain < _DRAWS_IN_VAIN:
        chain = random_genotype(space, generator)
        key = frames_key(chain)
        in_vain = in_vain + 1 if key in chains else 0
        chains.setdefault(key, chain)
    return tuple(chains.values())[:count]


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
    if count < 1:
        raise InputError(f"the number of candidates must be at least 1, got {count}")
    generator = torch.Generator().manual_seed(seed)
    flip = Genotype.parse("flip_x")
    singles = [candidate for candidate in space.candidates if candidate.chain]
    if count - 1 < len(singles):
        drawn = torch.randperm(len(singles), generator=generator)[: count - 1].sort().values.tolist()
        singles = [singles[i] for i in drawn]
    mirrored = [Genotype((*single.chain, *flip.chain)) for single in singles] if flip in space.candidates else []
    chains: dict[tuple[object, ...], Genotype] = {}
    for chain in (Genotype.identity(), *singles, *mirrored):
        chains.setdefault(frames_key(chain, (1.0,)), chain)
    in_vain = 0
    while len(chains) < count and in_vain < _DRAWS_IN_VAIN:
        chain = random_genotype(space, generator)
        key = frames_key(chain, (1.0,))
        in_vain = in_vain + 1 if key in chains else 0
        chains.setdefault(key, chain)
    return tuple(chains.values())[:count]


def given_frames(candidates: Sequence[Genotype | str]) -> tuple[Genotype, ...]:
    """The chains that a caller gives, those of equal frames once, the identity first; `InputError` for none."""
    chains: dict[tuple[object, ...], Genotype] = {}
    for chain in given_chains(candidates):
        chains.setdefault(frames_key(chain, (1.0,)), chain)
    return tuple(chains.values())


def given_chains(candidates: Sequence[Genotype | str]) -> tuple[Genotype, ...]:
    """The chains that a caller gives, each once, without provenance, the identity first; `InputError` for none."""
    chains = [Genotype.coerce(candidate).with_provenance(None) for candidate in candidates]
    if not chains:
        raise InputError("candidates is empty; give at least one genotype, or leave it out to draw from the space")
    return tuple(dict.fromkeys([Genotype.identity(), *chains]))


def frames_key(chain: Genotype, powers: Sequence[float] = (1.0, 2.0)) -> tuple[object, ...]:
    """Equal for chains that give the same frames at some powers, whatever the size of the image.

    Chains that agree at two powers agree at all, so that the schedule does not matter.
    """
    key: list[object] = []
    for run in chain.runs():
        if run.is_geometric:
            # Powers and an image of two different sizes each, so that no two ops agree by chance.
            for matrix in run.step_matrices(powers, 100, 130):
                key += matrix_key(matrix)
        else:
            key.append(str(run))
    if not key:  # the identity has no run, and the frames of any chain that moves nothing
        key += len(powers) * matrix_key(torch.eye(3))
    return tuple(key)
