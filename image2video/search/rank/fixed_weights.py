"""A genotype for a model that is already trained: chains are ranked, nothing is trained."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from image2video.clip.chain import check_colours
from image2video.clip.colours import Colours, Values
from image2video.clip.genotype import Genotype
from image2video.clip.options import ClipOptions
from image2video.errors import InputError
from image2video.protocols import ImageSet, Progress
from image2video.search.rank.averaging import AveragedFrames, check_bare
from image2video.search.rank.candidates import candidate_chains, given_chains
from image2video.search.rank.clip_candidate import ClipCandidate, ClipChoices
from image2video.search.rank.estimate import estimate_gain
from image2video.search.rank.halving import Halving, HalvingRules, Predictor
from image2video.search.rank.pool import HeldOut, check_judge
from image2video.search.rank.ranking import Ranking, simplest_of_the_best
from image2video.search.rank.shared_weights import SharedWeights
from image2video.search.score.network import FrameNetwork, device_of, in_mode, macs_per_frame
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
    T: int | Sequence[int] = 3,
    schedule: str | Sequence[str] | None = None,
    seed: int = 0,
    judge: float = 1 / 3,
    first_images: int = 128,
    max_images: int | None = None,
    max_seconds: float | None = None,
    max_frames: int | None = None,
    batch_size: int = 256,
    padding: str | Sequence[str] = "reflection",
    aggregate: str | Sequence[str] = "mean",
    max_cost: float | None = None,
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

    What chose a chain flatters it. So a share of the images, `judge`, chooses nothing: the best chain's gain is
    estimated on them, in the metric and in the loss, for a classifier also beside temperature scaling of the bare
    network. `Ranking.estimate`, `Ranking.decided` and `Ranking.sentence` speak of these images.

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
        T: frames per clip; several, such as `(2, 3, 5)`, to choose from. So may be schedule, padding and aggregate: the
            candidates are then all clips of all chains, and a frame that several of them hold is predicted once.
        schedule: the power of each frame; default the space's.
        seed: of the draw of candidates and the order of images.
        judge: the share of the images that choose nothing, 0 … 0.9; with 0 there is no estimate, and the gains are
            those of the images that chose.
        first_images: images of the first round.
        max_images: images in all; None is all of an `ImageSet`, 2000 of an iterable.
        max_seconds: stop after so long, with the ranking so far; then runs are not reproducible.
        max_frames: stop after so many frames, with the ranking so far. The first round is whole under both, and the
            estimate comes on top.
        batch_size: frames per forward pass.
        padding: see `image2video.clip.sampling.warp`.
        aggregate: how a classifier's frames are averaged: `mean` of the logits, or `mean_prob`, the log of the mean
            probability, which costs nothing more to score.
        max_cost: leave out clips of more frames.
        interpolation: see `image2video.clip.sampling.warp`.
        autocast: reduced precision of the forward passes, such as `torch.bfloat16`.
        task: what the model predicts; classification by default.
        mean: how the images are normalised, which chains with photometric ops need; default what the model's
            `pretrained_cfg` says.
        std: goes with `mean`.
        provenance: JSON values to write into the best genotype's provenance (dataset, backbone, …).
        progress: called as frames go by.

    Returns:
        All chains with their scores, and the best one with its provenance.

    Raises:
        InputError: no images, no candidates, outputs that the task does not take, NaN in them, photometric candidates
            for images of unknown colours, a `max_cost` that leaves no clip, another average than `mean` for a task
            that is no classification.
        InputTypeError: images that are not float.
        StateError: the model is a `VideoWrap`.

    Example:
        >>> net = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))
        >>> loader = [(torch.rand(20, 3, 16, 16), torch.arange(20) % 3) for _ in range(4)]
        >>> ranking = rank_genotypes(net, loader, count=6, T=3)
        >>> len(ranking.entries), ranking.identity.gain
        (6, 0.0)
    """
    if first_images < 1:
        raise InputError(f"first_images must be at least 1, got {first_images}")
    check_judge(judge)
    check_bare(model)
    source = space if isinstance(space, SearchSpace) else get_space("gentle" if space is None else space)
    chains = candidate_chains(source, count, seed) if candidates is None else given_chains(candidates)
    colours = Colours.coerce(mean, std) or Colours.of(model)
    for chain in chains:
        check_colours(chain, colours)
    mean, std = (None, None) if colours is None else (colours.mean, colours.std)
    choices = ClipChoices(T, schedule or source.schedule, padding, aggregate, max_cost)
    clips = choices.candidates(chains, ClipOptions(interpolation=interpolation, mean=mean, std=std))
    task = task or ClassificationTask()
    predictor = _predictor(model, clips, task, batch_size, autocast)
    held_out = HeldOut(
        data,
        max_images,
        batch_size=_images_per_batch(predictor, clips, batch_size),
        seed=seed,
        device=device_of(model),
        class_labels=isinstance(task, ClassificationTask),
    )
    late = _limits(predictor, max_seconds, max_frames)
    rules = HalvingRules(task, first_images, late=late, progress=progress)
    started = time.perf_counter()
    choosing = held_out.num_images - int(judge * held_out.num_images)
    with in_mode(model, training=False), torch.no_grad():
        outcome = Halving(clips, predictor, held_out, rules, choosing).run()
        best = simplest_of_the_best(outcome.finalists, outcome.scores)
        estimate = None
        if choosing < held_out.num_images:
            judging = held_out.part(choosing, held_out.num_images)
            estimate = estimate_gain(clips[0], outcome.finalists[best], predictor, judging, task)
        frame_macs = macs_per_frame(model, next(held_out.stream())[0][:1])
    seconds = time.perf_counter() - started
    ranking = outcome.ranking(best, frames=predictor.frames, seconds=seconds, metric=task.metric, frame_macs=frame_macs)
    if estimate is not None:
        ranking = replace(ranking, estimate=estimate, decided=estimate.decided)
    entry = ranking.best_entry
    record = {
        **dict(provenance or {}),
        "selection": "fixed_weights",
        "space": None if candidates is not None else source.name,
        "candidates": len(clips),
        "T": entry.T,
        "schedule": entry.schedule,
        "padding": entry.padding,
        "interpolation": interpolation,
        "aggregate": entry.aggregate,
        "seed": seed,
        "images": ranking.images,
        "score": entry.accuracy,
        "score_error": entry.accuracy_error,
        "gain": entry.gain,
        "gain_error": entry.gain_error,
        "decided": ranking.decided,
        **({} if estimate is None else {"estimate": estimate.to_dict()}),
        "image2video": __version__,
    }
    return replace(ranking, best=ranking.best.with_provenance(record))


def _predictor(
    model: nn.Module, clips: Sequence[ClipCandidate], task: Task, batch_size: int, autocast: torch.dtype | None
) -> Predictor:
    """A predictor that shares frames between clips where the task allows it."""
    if type(task) is ClassificationTask:
        return AveragedFrames(model, batch_size, autocast)
    other = next((clip.aggregate for clip in clips if clip.aggregate != "mean"), None)
    if other is not None:
        raise InputError(f"aggregate={other!r} averages the logits of images; for {task.name} it must be 'mean'")

    def precision() -> AbstractContextManager[object]:
        return nullcontext() if autocast is None else torch.autocast(device_of(model).type, autocast)

    # Chains share frames here too, but the maps of shared frames would all have to be kept.
    return SharedWeights(FrameNetwork(model, None), task, precision)


def _images_per_batch(predictor: Predictor, clips: Sequence[ClipCandidate], frames: int) -> int:
    """How many images are read at once if `frames` frames go through the model at once."""
    # A clip of its own has T frames an image; shared frames come a few at a time, however many there are.
    most = max(clip.options.T for clip in clips)
    return max(1, frames // (4 if isinstance(predictor, AveragedFrames) else most))


def _limits(predictor: Predictor, max_seconds: float | None, max_frames: int | None) -> Callable[[], bool] | None:
    """Whether time or frames are spent, as `Halving` asks; None without limits."""
    if max_seconds is None and max_frames is None:
        return None
    deadline = math.inf if max_seconds is None else time.perf_counter() + max_seconds
    most = math.inf if max_frames is None else max_frames
    return lambda: predictor.frames >= most or time.perf_counter() > deadline
