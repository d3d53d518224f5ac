"""A genotype for a model that is already trained: chains are ranked, nothing is trained."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from image2video.errors import InputError
from image2video.genotype import Genotype
from image2video.protocols import ImageSet, Progress
from image2video.search.averaging import AveragedFrames, evaluating, matrix_key
from image2video.search.halving import Halving
from image2video.search.measure import PairedScores
from image2video.search.pool import HeldOut
from image2video.search.ranking import RankedGenotype, Ranking, entry_of, is_decided, order_of, simplest_of_the_best
from image2video.search.space import SearchSpace, get_space
from image2video.search.topology import random_genotype
from image2video.version import __version__

_DRAWS_IN_VAIN = 200  # then the space is taken to hold no further chain


def rank_genotypes(
    model: nn.Module,
    data: ImageSet | Iterable[Any],
    *,
    space: SearchSpace | str | None = None,
    candidates: Sequence[Genotype | str] | None = None,
    count: int = 64,
    T: int = 5,
    schedule: str | None = None,
    seed: int = 0,
    first_images: int = 128,
    max_images: int | None = None,
    max_seconds: float | None = None,
    batch_size: int = 256,
    padding: str = "zeros",
    interpolation: str = "bilinear",
    autocast: torch.dtype | None = None,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Ranking:
    """Find the chain whose averaged frame predictions a trained model gets right most often (ours; no paper).

    The model stays as it is, on its device: it predicts every frame of the clip, and the mean of the logits is scored
    by accuracy on held-out images, ties by loss. By successive halving, all chains are scored on the first images, the
    better half goes on to as many again, then to twice as many, and the last eight are scored on all. The identity
    (the image itself) takes part to the end as the reference, with gains paired image by image. Frames that several
    chains share are predicted once.

    Args:
        model: images `(N, C, H, W)` -> logits `(N, K)`; not a `VideoWrap`.
        data: images that the model was *not* trained on: an `ImageSet`, or any iterable of `(images, labels)` batches
            as the model takes them, such as a data loader. An iterable's first `max_images` images (2000 by default)
            are read into memory and shuffled; a loader that is sorted by class must be shuffled or short.
        space: where candidates come from (default `gentle`: small steps of either sign): all its single steps, up to
            half of `count`, and for the rest random chains as the space's cell would give them.
        candidates: the chains to rank instead.
        count: how many candidates to draw, the identity included.
        T: frames per clip.
        schedule: the power of each frame; default the space's.
        seed: of the draw of candidates and the order of images.
        first_images: images of the first round.
        max_images: images of the last round; None is all of an `ImageSet`, 2000 of an iterable.
        max_seconds: stop after so long, with the ranking so far; then runs are not reproducible.
        batch_size: frames per forward pass.
        padding: see `image2video.sampling.warp`.
        interpolation: see `image2video.sampling.warp`.
        autocast: reduced precision of the forward passes, such as `torch.bfloat16`.
        provenance: JSON values to write into the best genotype's provenance (dataset, backbone, …).
        progress: called as frames go by.

    Raises:
        InputError: no images, no candidates, logits that are not `(N, K)`, NaN in logits.
        InputTypeError: images that are not float.
        StateError: the model is a `VideoWrap`.

    Example:
        >>> net = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))
        >>> loader = [(torch.rand(20, 3, 16, 16), torch.arange(20) % 3) for _ in range(4)]
        >>> ranking = rank_genotypes(net, loader, count=6, T=3)
        >>> len(ranking.entries), ranking.identity.gain
        (6, 0.0)

    """
    source = get_space("gentle" if space is None else space) if not isinstance(space, SearchSpace) else space
    schedule = schedule or source.schedule
    if first_images < 1:
        raise InputError(f"first_images must be at least 1, got {first_images}")
    chains = candidate_chains(source, count, seed) if candidates is None else _given(candidates)
    averaged = AveragedFrames(model, T, schedule, batch_size, padding, interpolation, autocast)
    held_out = HeldOut(data, max_images, batch_size=max(1, batch_size // 4), seed=seed, device=averaged.device)
    started = time.perf_counter()
    with evaluating(model), torch.no_grad():
        halving = Halving(chains, averaged, held_out, first_images, max_seconds, progress)
        survivors, scores, eliminated = halving.run()
    best = simplest_of_the_best([chains[v] for v in survivors], scores)
    entries = _entries(chains, survivors, scores, eliminated)
    identity = survivors.index(0)
    decided = is_decided(scores, best, identity)
    record = {
        **dict(provenance or {}),
        "selection": "fixed_weights",
        "space": None if candidates is not None else source.name,
        "candidates": len(chains),
        "T": T,
        "schedule": schedule,
        "seed": seed,
        "images": scores.n,
        "score": scores.accuracy(best),
        "score_error": scores.accuracy_error(best),
        "gain": scores.accuracy_gap(best, identity)[0],
        "gain_error": scores.accuracy_gap(best, identity)[1],
        "decided": decided,
        "image2video": __version__,
    }
    return Ranking(
        entries,
        len(survivors),
        chains[survivors[best]].with_provenance(record),
        decided,
        scores.n,
        averaged.frames,
        time.perf_counter() - started,
    )


def candidate_chains(space: SearchSpace, count: int, seed: int) -> tuple[Genotype, ...]:
    """`count` chains of a space that give different frames, the identity first: single steps up to half, then random.

    Of chains with the same frames the one that comes first stays. Fewer where the space has no more. Raises
    `InputError` for a count below 1.
    """
    if count < 1:
        raise InputError(f"the number of candidates must be at least 1, got {count}")
    generator = torch.Generator().manual_seed(seed)
    singles = [candidate for candidate in space.candidates if candidate.chain]
    drawn = torch.randperm(len(singles), generator=generator)[: count // 2].sort().values.tolist()
    chains = {frames_key(chain): chain for chain in [Genotype.identity(), *(singles[i] for i in drawn)]}
    in_vain = 0
    while len(chains) < count and in_vain < _DRAWS_IN_VAIN:
        chain, known = random_genotype(space, generator), len(chains)
        chains.setdefault(frames_key(chain), chain)
        in_vain = 0 if len(chains) > known else in_vain + 1
    return tuple(chains.values())[:count]


def frames_key(chain: Genotype) -> tuple[float, ...]:
    """Equal for chains that give the same frames, whatever the schedule and the size of the image."""
    return tuple(value for matrix in chain.step_matrices((1.0, 2.0), 100, 130) for value in matrix_key(matrix))


def _given(candidates: Sequence[Genotype | str]) -> tuple[Genotype, ...]:
    chains = [Genotype.coerce(candidate).with_provenance(None) for candidate in candidates]
    if not chains:
        raise InputError("candidates is empty; give at least one genotype, or leave it out to draw from the space")
    return tuple(dict.fromkeys([Genotype.identity(), *chains]))


def _entries(
    chains: tuple[Genotype, ...],
    survivors: list[int],
    scores: PairedScores,
    eliminated: list[tuple[int, PairedScores]],
) -> tuple[RankedGenotype, ...]:
    identity = survivors.index(0)
    finalists = [entry_of(chains[survivors[v]], scores, v, identity) for v in order_of(scores)]
    return (*finalists, *(entry_of(chains[index], pair, 0, 1) for index, pair in eliminated))
