"""A genotype for a model that is already trained: chains are ranked, nothing is trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from image2video.clip.chain import check_colours
from image2video.clip.colours import Colours, Values
from image2video.clip.genotype import Genotype
from image2video.errors import InputError
from image2video.protocols import ImageSet, Progress
from image2video.search.rank.averaging import AveragedFrames, check_bare
from image2video.search.rank.candidates import candidate_chains, given_chains
from image2video.search.rank.halving import Halving, Predictor
from image2video.search.rank.pool import HeldOut
from image2video.search.rank.ranking import Ranking, count_tied, entries_of, is_decided, simplest_of_the_best
from image2video.search.rank.shared_weights import SharedWeights
from image2video.search.score.network import FrameNetwork, device_of, in_mode
from image2video.search.score.task import ClassificationTask, Task
from image2video.search.space.space import SearchSpace, get_space
from image2video.version import __version__


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
    max_frames: int | None = None,
    batch_size: int = 256,
    padding: str = "zeros",
    interpolation: str = "bilinear",
    autocast: torch.dtype | None = None,
    task: Task | None = None,
    mean: Values = None,
    std: Values = None,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Ranking:
    """Find the chain whose averaged frame predictions a trained model gets right most often (ours; no paper).

    The model stays as it is, on its device: it predicts every frame of the clip, and the mean of the logits (for maps:
    unwarped to the image) is scored by the task's metric on held-out images, ties by loss. By successive halving, all
    chains are scored on the first images, the better half goes on to as many again, then to twice as many, and the last
    eight are scored on all. The identity (the image itself) takes part to the end as the reference, with gains paired
    image by image. A classifier predicts frames that several chains share once.

    Args:
        model: images `(N, C, H, W)` -> logits `(N, K)`, or what `task` takes; not a `VideoWrap`.
        data: images that the model was *not* trained on: an `ImageSet`, or any iterable of `(images, labels)` batches
            as the model takes them, such as a data loader. An iterable's first `max_images` images (2000 by default)
            are read into memory and shuffled; a loader that is sorted by class must be shuffled or short.
        space: where candidates come from (default `gentle`: small steps of either sign): all its single steps, up to
            half of `count`, and for the rest random chains as the space's cell would give them. A name, a path of a
            space's file, or a space.
        candidates: the chains to rank instead.
        count: how many candidates to draw, the identity included.
        T: frames per clip.
        schedule: the power of each frame; default the space's.
        seed: of the draw of candidates and the order of images.
        first_images: images of the first round.
        max_images: images of the last round; None is all of an `ImageSet`, 2000 of an iterable.
        max_seconds: stop after so long, with the ranking so far; then runs are not reproducible.
        max_frames: stop after so many frames, with the ranking so far. The first round is whole under both.
        batch_size: frames per forward pass.
        padding: see `image2video.clip.sampling.warp`.
        interpolation: see `image2video.clip.sampling.warp`.
        autocast: reduced precision of the forward passes, such as `torch.bfloat16`.
        task: what the model predicts; classification by default.
        mean: how the images are normalised, which chains with photometric ops need; default what the model's
            `pretrained_cfg` says.
        std: goes with `mean`.
        provenance: JSON values to write into the best genotype's provenance (dataset, backbone, …).
        progress: called as frames go by.

    Raises:
        InputError: no images, no candidates, outputs that the task does not take, NaN in them, photometric candidates
            for images of unknown colours.
        InputTypeError: images that are not float.
        StateError: the model is a `VideoWrap`.

    Example:
        >>> net = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))
        >>> loader = [(torch.rand(20, 3, 16, 16), torch.arange(20) % 3) for _ in range(4)]
        >>> ranking = rank_genotypes(net, loader, count=6, T=3)
        >>> len(ranking.entries), ranking.identity.gain
        (6, 0.0)

    """
    source = space if isinstance(space, SearchSpace) else get_space("gentle" if space is None else space)
    schedule, task = schedule or source.schedule, task or ClassificationTask()
    if first_images < 1:
        raise InputError(f"first_images must be at least 1, got {first_images}")
    chains = candidate_chains(source, count, seed) if candidates is None else given_chains(candidates)
    colours = Colours.coerce(mean, std) or Colours.of(model)
    for chain in chains:
        check_colours(chain, colours)
    predictor: Predictor
    if type(task) is ClassificationTask:
        predictor = AveragedFrames(model, T, schedule, batch_size, padding, interpolation, autocast, colours)
    else:
        predictor = _apart(model, T, schedule, padding, interpolation, autocast, colours, task)
    held_out = HeldOut(
        data,
        max_images,
        batch_size=max(1, batch_size // (4 if type(task) is ClassificationTask else T)),
        seed=seed,
        device=device_of(model),
        class_labels=isinstance(task, ClassificationTask),
    )
    late, started = _limits(predictor, max_seconds, max_frames), time.perf_counter()
    with in_mode(model, training=False), torch.no_grad():
        halving = Halving(chains, predictor, held_out, first_images, task=task, late=late, progress=progress)
        survivors, scores, eliminated = halving.run()
    best = simplest_of_the_best([chains[v] for v in survivors], scores)
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
        entries_of(chains, survivors, scores, eliminated),
        len(survivors),
        chains[survivors[best]].with_provenance(record),
        decided,
        scores.n,
        predictor.frames,
        time.perf_counter() - started,
        count_tied(scores),
        task.metric,
    )


def _apart(
    model: nn.Module,
    T: int,
    schedule: str,
    padding: str,
    interpolation: str,
    autocast: torch.dtype | None,
    colours: Colours | None,
    task: Task,
) -> SharedWeights:
    """Predicts the clip of every chain by itself: maps of shared frames would all have to be kept."""
    check_bare(model)

    def precision() -> AbstractContextManager[object]:
        return nullcontext() if autocast is None else torch.autocast(device_of(model).type, autocast)

    return SharedWeights(FrameNetwork(model, None), T, schedule, padding, interpolation, task, colours, precision)


def _limits(predictor: Predictor, max_seconds: float | None, max_frames: int | None) -> Callable[[], bool] | None:
    """Whether time or frames are spent, as `Halving` asks; None without limits."""
    if max_seconds is None and max_frames is None:
        return None
    deadline = None if max_seconds is None else time.perf_counter() + max_seconds

    def late() -> bool:
        over = max_frames is not None and predictor.frames >= max_frames
        return over or (deadline is not None and time.perf_counter() > deadline)

    return late
