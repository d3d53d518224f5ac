"""A set of frames for a model that is already trained: frames are chosen greedily, nothing is trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from image2video.clip.chain import check_colours
from image2video.clip.checks import check_choice, check_frames
from image2video.clip.colours import Colours, Values
from image2video.clip.genotype import Genotype
from image2video.clip.genotype_text import MAX_FRAMES
from image2video.clip.options import ClipOptions
from image2video.errors import InputError
from image2video.protocols import ImageSet, Progress
from image2video.search.rank.averaging import AveragedFrames, check_bare, frames_at_once
from image2video.search.rank.candidates import candidate_frames, given_frames
from image2video.search.rank.clip_candidate import ClipCandidate, several
from image2video.search.rank.curve import (
    GreedySet,
    curve_points,
    prefixes,
    scored_sets,
    set_temperatures,
    smallest_of_the_best,
)
from image2video.search.rank.estimate import estimate_of_logits
from image2video.search.rank.frame_cache import FrameCache
from image2video.search.rank.frame_choice import FrameChoice
from image2video.search.rank.greedy import CRITERIA, STARTS, greedy_order, set_logits
from image2video.search.rank.pool import HeldOut, check_judge
from image2video.search.rank.ranking import DECIDED
from image2video.search.score.network import device_of, in_mode
from image2video.search.score.task import ClassificationTask, Task
from image2video.search.space.space import SearchSpace, get_space
from image2video.settings.search import AVERAGES
from image2video.version import __version__

_FRAMES_AT_ONCE = 4  # of an image, in a forward pass


def greedy_frames(
    model: nn.Module,
    data: ImageSet | Iterable[Any],
    *,
    space: SearchSpace | str = "pose",
    candidates: Sequence[Genotype | str] | None = None,
    count: int = 100,
    T: int = 8,
    criterion: str = "calibrated",
    start: str = "identity",
    aggregate: str | Sequence[str] = AVERAGES,
    judge: float = 1 / 3,
    max_cost: float | None = None,
    max_images: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    padding: str = "reflection",
    interpolation: str = "bilinear",
    autocast: torch.dtype | None = None,
    task: Task | None = None,
    mean: Values = None,
    std: Values = None,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> FrameChoice:
    """Find the frames whose averaged predictions a trained classifier gets right, one by one.

    Greedy policy search (Molchanov et al., UAI 2020) for frame sets. Each candidate is one frame: a chain, applied
    once. The model predicts every frame of every image that chooses once; its predictions are kept, so that any set of
    frames costs no further pass. The set begins with the image itself, and the frame that raises the criterion most is
    added, again and again, until there are `T` or none raises it. The model stays as it is, on its device.

    What chose the frames flatters them. So a share of the images, `judge`, chooses nothing: the whole curve of gain
    against T is scored on them too, and the gain of the chosen set is estimated as in `rank_genotypes`. They are
    predicted after the choice, and only on frames that are in a set of the curve.

    Args:
        model: images `(N, C, H, W)` -> logits `(N, K)`; not a `VideoWrap`.
        data: images that the model was *not* trained on; see `rank_genotypes`.
        space: where candidates come from, a name, a path of a space's file, or a space: the identity, all its single
            steps, these mirrored where it has `flip_x`, and for the rest random chains as its cell would give them.
            `pose` (default) has shifts, turns and zooms wide enough for a tilted camera; `gentle` has smaller steps.
        candidates: the chains to choose from instead; the identity is always among them.
        count: how many candidates to draw, the identity included. Each costs one forward pass per image.
        T: frames of the largest set, 1 … 256.
        criterion: what a frame must raise: `calibrated`, the log-likelihood of the averaged prediction after
            temperature scaling, whose temperature is fitted on the images that choose; or `accuracy`, where the
            calibrated log-likelihood decides between sets that are equally accurate.
        start: what the set begins with: `identity`, the image itself; or `best`, the best single frame, which is
            another one where images are, say, tilted: then a single frame may be all that is needed.
        aggregate: how predictions are averaged: `mean` of the logits, `mean_prob`, the log of the mean probability, or
            both (default): each has a search of its own from the same predictions, and the better one is taken.
        judge: the share of the images that choose nothing, 0 … 0.9; with 0 there is no estimate, and the curve is that
            of the images that chose.
        max_cost: choose a set of at most so many frames; the curve goes on to `T`.
        max_images: images in all; None is all of an `ImageSet`, 2000 of an iterable.
        seed: of the draw of candidates and the order of images.
        batch_size: frames per forward pass; by default 256, and 32 on a CPU, which more would only slow down.
        padding: see `image2video.clip.sampling.warp`; the same for all frames.
        interpolation: see `image2video.clip.sampling.warp`.
        autocast: reduced precision of the forward passes, such as `torch.bfloat16`.
        task: refused unless it is classification.
        mean: how the images are normalised, which chains with photometric ops need; default what the model's
            `pretrained_cfg` says.
        std: goes with `mean`.
        provenance: JSON values to write into the set's provenance (dataset, backbone, …).
        progress: called as frames go by (stages `frames`, `judge`), and as they are chosen (`choose`).

    Returns:
        The curve, and the set to use with its provenance.

    Raises:
        InputError: no images, no candidates, outputs that are no logits of two or more classes, logits that are not
            finite, labels beyond the classes, photometric candidates for images of unknown colours, a `max_cost` below
            1, a task that is no classification, predictions that would take more than half of the machine's memory.
        InputTypeError: images that are not float.
        StateError: the model is a `VideoWrap`.

    Example:
        >>> net = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))
        >>> loader = [(torch.rand(20, 3, 16, 16), torch.arange(20) % 3) for _ in range(4)]
        >>> choice = greedy_frames(net, loader, candidates=["flip_x", "scale(1.2)"], T=3)
        >>> str(choice.curve[0].frames), choice.curve[0].judging.gain
        ('identity |', 0.0)
    """
    check_bare(model)
    _check_settings(T, criterion, start, max_cost, task)
    check_judge(judge)
    averages = [check_choice("aggregate", name, AVERAGES) for name in several("aggregate", aggregate)]
    source = space if isinstance(space, SearchSpace) else get_space(space)
    chains = candidate_frames(source, count, seed) if candidates is None else given_frames(candidates)
    colours = Colours.coerce(mean, std) or Colours.of(model)
    for chain in chains:
        check_colours(chain, colours)
    options = ClipOptions(1, "ramp", padding, interpolation).with_colours(colours)  # each chain at power 1
    clips = [ClipCandidate.averaged(chain, options) for chain in chains]
    device = device_of(model)
    if batch_size is None:
        batch_size = frames_at_once(device)
    averaged = AveragedFrames(model, batch_size, autocast)
    held_out = HeldOut(data, max_images, batch_size=max(1, batch_size // _FRAMES_AT_ONCE), seed=seed, device=device)
    started = time.perf_counter()
    total = held_out.num_images
    choosing = total - int(judge * total)
    judges = None
    with in_mode(model, training=False), torch.no_grad():
        batches = held_out.part(0, choosing)
        cache = FrameCache.read(averaged, clips, batches, choosing, stage="frames", progress=progress)
        sets = [_BARE]
        for number, average in enumerate(averages):
            report = _steps(progress, number * T, len(averages) * T)
            order = greedy_order(cache, T, average=average, criterion=criterion, start=start, on_step=report)
            report(T)  # it may end early, where no frame raises the criterion
            sets += prefixes(order, average)
        if choosing < total:
            # They could not choose if they would: nobody has looked at them before.
            few, judged_sets = _used(sets, clips)
            batches = held_out.part(choosing, total)
            judges = FrameCache.read(averaged, few, batches, total - choosing, stage="judge", progress=progress)
    temperatures = set_temperatures(cache, sets)
    scores = scored_sets(cache, sets, temperatures)
    best = smallest_of_the_best(sets, scores, criterion, max_cost)
    judged, estimate = None, None
    if judges is not None:
        judged = scored_sets(judges, judged_sets, temperatures)
        pair = [set_logits(judges, item.frames, item.aggregate) for item in (judged_sets[0], judged_sets[best])]
        estimate = estimate_of_logits(torch.stack(pair), judges.labels)
    points = curve_points(chains, sets, temperatures, scores, judged)
    gain, error = points[best - 1].choosing.gain, points[best - 1].choosing.gain_error
    choice = FrameChoice(
        best=points[best - 1].frames,
        points=points,
        choice=best - 1,
        decided=gain > DECIDED * error if estimate is None else estimate.decided,
        criterion=criterion,
        candidates=len(chains),
        images=cache.num_images,
        evaluated=averaged.frames,
        seconds=time.perf_counter() - started,
        padding=padding,
        interpolation=interpolation,
        estimate=estimate,
    )
    how = {"space": None if candidates is not None else source.name, "start": start, "seed": seed}
    return replace(choice, best=choice.best.with_provenance({**dict(provenance or {}), **_found(choice), **how}))


_BARE = GreedySet((0,), "mean")
"""The image itself: the reference of every gain."""


def _check_settings(T: int, criterion: str, start: str, max_cost: float | None, task: Task | None) -> None:
    if check_frames(T) > MAX_FRAMES:
        raise InputError(f"a frame set has at most {MAX_FRAMES} frames, got T={T}")
    check_choice("criterion", criterion, CRITERIA)
    check_choice("start", start, STARTS)
    if max_cost is not None and not max_cost >= 1:
        raise InputError(f"max_cost={max_cost:g} frames leaves no set; the smallest has 1 frame")
    check_classification(task)


def check_classification(task: Task | None) -> None:
    """Refuse any other task: its predictions, such as maps, are not kept for all frames."""
    if task is not None and type(task) is not ClassificationTask:
        raise InputError(
            f"greedy_frames averages the logits of images, and the task is {task.name}; rank_genotypes "
            "(selection='fixed_weights') ranks clips for any task"
        )


def _steps(progress: Progress | None, before: int, total: int) -> Callable[[int], None]:
    """What reports the frames of one greedy search as steps `before` … of `total`."""

    def report(count: int) -> None:
        if progress is not None:
            progress("choose", before + count, total)

    return report


def _used(sets: Sequence[GreedySet], clips: Sequence[ClipCandidate]) -> tuple[list[ClipCandidate], list[GreedySet]]:
    """The candidates that any set holds, and the sets with their frames numbered among these alone."""
    used = sorted({frame for item in sets for frame in item.frames})
    place = {frame: number for number, frame in enumerate(used)}
    renumbered = [GreedySet(tuple(place[frame] for frame in item.frames), item.aggregate) for item in sets]
    return [clips[frame] for frame in used], renumbered


def _found(choice: FrameChoice) -> dict[str, Any]:
    """What the provenance of the best set says of its choice."""
    point, estimate = choice.best_point, choice.estimate
    return {
        "selection": "greedy_frames",
        "candidates": choice.candidates,
        "criterion": choice.criterion,
        "T": point.T,
        "schedule": "from_zero",
        "padding": choice.padding,
        "interpolation": choice.interpolation,
        "aggregate": point.aggregate,
        "images": choice.images,
        "score": point.choosing.accuracy,
        "gain": point.choosing.gain,
        "gain_error": point.choosing.gain_error,
        "decided": choice.decided,
        **({} if estimate is None else {"estimate": estimate.to_dict()}),
        "image2video": __version__,
    }
