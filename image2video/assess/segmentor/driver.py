"""One call that answers whether a clip helps a trained segmentor of mmsegmentation."""

from __future__ import annotations

import itertools
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from image2video.assess.assessment import Row
from image2video.assess.choice import cheapest_of_the_best
from image2video.assess.driver import LEAST_IMAGES, check_numbers
from image2video.assess.finalists import Finalist, bare_finalist
from image2video.assess.scoring import ROUNDS
from image2video.assess.searches import FEW
from image2video.assess.segmentor.assessment import SegmentorAssessment
from image2video.assess.segmentor.budget import Budget
from image2video.assess.segmentor.finalists import phases_of_backbone, plain_averages
from image2video.assess.segmentor.network import ClipScorer, Scored
from image2video.assess.segmentor.scores import RESAMPLES, choosing_scores, gain_of
from image2video.assess.segmentor.searches import PixelSearches, frames_at_once
from image2video.data.seeds import seeded_generator
from image2video.errors import InputError, MissingError
from image2video.protocols import Progress
from image2video.search.rank.pool import check_judge
from image2video.search.space.space import SearchSpace, get_space

if TYPE_CHECKING:  # mmsegmentation takes seconds to import, and may not be there
    from image2video.integrations.openmmlab.trained import TrainedSegmentor

NEARLY_ALL = 0.98
"""From this mIoU on hardly anything is left to gain, or the images are those of the training."""
FEWEST_LABELLED = 5
"""Images with labelled pixels that choose, and that judge, at least."""
_MOST_IMAGES = 2000
_BATCH = 8
_UNTIMED = "The time of an image was not measured: the memory does not hold what it takes."
_FOUND = 3
"""How many clips the searches find at most."""


def assess_segmentor(
    config: str | os.PathLike[str] | TrainedSegmentor | Any,
    weights: str | os.PathLike[str] | None = None,
    *,
    images: str | None = None,
    max_cost: float = 3.0,
    minutes: float | None = None,
    candidates: int = 60,
    space: SearchSpace | str = "pose",
    judge: float = 1 / 3,
    max_images: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    about: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> SegmentorAssessment:
    """Say whether averaging over a clip helps a trained segmentor of mmsegmentation, and at which cost (ours).

    Nothing is trained. Images, labels and their pipeline are those of the config. On one part of the images the bare
    segmentor is scored, single moved frames are ranked, chains over T, schedule and padding, and clips that begin
    inside of the backbone where its heads allow one; all stand beside the averages that people use without a search
    (mirror image, zooms of both signs, shifts, other phases of the network's strides). Logits of frames are brought
    back to the image and averaged. Of all these the cheapest is chosen that is as good as the best, in mIoU and in
    cross-entropy. The other part of the images, which chose nothing, judges. All figures are those of the very
    segmentor that `SegmentorAssessment.line` makes of the config, as mmsegmentation tests it; pixels whose label is
    ignored count nowhere. Intervals are of the images: pixels of one image are not independent.

    Args:
        config: the path of a config of mmsegmentation, the config, or what `TrainedSegmentor.read` made of one.
        weights: the checkpoint of the plain segmentor; None with a `TrainedSegmentor`.
        images: `val` or `test`: of which data loader of the config; by default `val`, else `test`.
        max_cost: the most that an image may cost, as a multiple of the bare segmentor.
        minutes: about how long it may take; then fewer candidates are looked at, and runs are not reproducible.
        candidates: how many clips to look at; half of them are single frames, half chains.
        space: where candidates come from; see `greedy_frames`.
        judge: the share of the images that chooses nothing.
        max_images: at most so many images; 2000 by default. They are read anew for every clip.
        seed: of the draws of images and candidates.
        device: where the segmentor computes.
        about: JSON values for the report, such as the names of config and data.
        progress: called as the work goes on, by stages.

    Returns:
        The clips with their figures, the one to use, and what to say about it.

    Raises:
        InputError: a config without `val` or `test` images, fewer than 30 images, fewer than five images with labelled
            pixels that choose or that judge, labels of one class, a `max_cost` below 1, too few minutes for a single
            candidate, a segmentor with a fusion.
        MissingError: no config, no weights, a path in the config that does not exist; mmsegmentation is not installed.
        UnsupportedError: a segmentor, head or data preprocessor that a ranking does not know, by name; one that slides
            and cannot take whole images.
    """
    check_judge(judge)
    check_numbers(max_cost, minutes=minutes, candidates=candidates, judge=judge)
    source = space if isinstance(space, SearchSpace) else get_space(space)
    segmentor = read_segmentor(config, weights, images, device)
    began = time.perf_counter()
    scorer = _scorer(segmentor, judge, _MOST_IMAGES if max_images is None else max_images, seed)
    bare, example = bare_finalist(), scorer.example
    scorer.check_whole()
    finalists = [bare, *plain_averages(max_cost), *phases_of_backbone(segmentor, example, max_cost)]
    at_once = frames_at_once(segmentor.images().at(scorer.choosing), len(segmentor.classes))
    batch = max(1, min(_BATCH, scorer.count, at_once // int(max_cost)))
    budget = None
    if minutes is not None:
        # What the searches find goes through the segmentor once more at the end, as the plain averages do.
        ends = (sum(finalist.T for finalist in finalists) + _FOUND * int(max_cost)) * scorer.count
        budget = Budget(minutes, ends, len(scorer.choosing), batch, int(max_cost))
        budget.check(scorer.seconds_per_frame())
    first = time.perf_counter()
    _look(segmentor, scorer.score(bare, _steps(progress, "bare", scorer.count)))
    per_frame = (time.perf_counter() - first) / scorer.count
    frames, rounds = (None, ROUNDS) if budget is None else budget.plan(per_frame)
    choosing = segmentor.images().at(scorer.choosing[scorer.score(bare).choosing.has_labels])
    searches = PixelSearches(segmentor, choosing, source, seed, max_cost, max(FEW, candidates // 2), frames, progress)
    for found in (searches.frame(), searches.chain(), searches.inside()):
        if found is not None and found.frames not in [finalist.frames for finalist in finalists]:
            finalists.append(found)
    step = _steps(progress, "finalists", scorer.count * (len(finalists) - 1))
    for finalist in finalists:
        scorer.score(finalist, step)
    rows, choice = _rows(finalists, scorer)
    numbers = sorted({0, choice})
    timed, batch = scorer.costs([finalists[number] for number in numbers], batch, rounds, progress)
    for number, cost in zip(numbers, timed, strict=bool(timed)):
        rows[number] = replace(rows[number], single=cost.single, batched=cost.batched, single_ms=cost.single_ms)
    channels, height, width = example.shape[1:]
    return SegmentorAssessment(
        rows=tuple(rows),
        choice=choice,
        candidates=searches.looked,
        max_cost=max_cost,
        temperature=scorer.score(bare).temperature,
        batch=batch,
        seconds=time.perf_counter() - began,
        input_size=(channels, height, width),
        notes=(*segmentor.notes, *searches.notes, *([] if timed else [_UNTIMED])),
        about=dict(about or {}),
        video_type=segmentor.video_type,
        loader=segmentor.loader,
        resamples=RESAMPLES,
    )


def read_segmentor(
    config: str | os.PathLike[str] | TrainedSegmentor | Any,
    weights: str | os.PathLike[str] | None = None,
    images: str | None = None,
    device: torch.device | str = "cpu",
) -> TrainedSegmentor:
    """The trained segmentor that a config describes; see `assess_segmentor`."""
    try:
        from image2video.integrations.openmmlab.trained import TrainedSegmentor
    except ImportError as error:
        raise MissingError(
            f"a segmentor needs mmsegmentation, which cannot be imported here ({error}); pip install '.[mmseg]' in a "
            "clone"
        ) from error
    if isinstance(config, TrainedSegmentor):
        return config
    if weights is None:
        raise InputError("without weights the segmentor is random; give the checkpoint of the trained one")
    return TrainedSegmentor.read(config, weights, images, device)


def _steps(progress: Progress | None, stage: str, total: int) -> Callable[[], None] | None:
    """What reports one image after the other as steps of a stage."""
    if progress is None:
        return None
    report, done = progress, itertools.count(1)
    return lambda: report(stage, next(done), total)


def _scorer(segmentor: TrainedSegmentor, judge: float, most: int, seed: int) -> ClipScorer:
    """The images, some of which choose and the others judge, in an order that the seed draws."""
    if most < 1:
        raise InputError(f"max_images must be at least 1, got {most}")
    order = torch.randperm(len(segmentor.items), generator=seeded_generator(seed))[:most]
    count, there = len(order), len(segmentor.items)
    if count < LEAST_IMAGES:
        asked = f" (max_images={most} of its {there})" if most < there else ""
        raise InputError(
            f"an assessment needs at least {LEAST_IMAGES} labelled images, got {count} of {segmentor.loader}{asked}: a "
            "third of them judges, and to decide a gain of one point of mIoU takes some hundred"
        )
    if segmentor.saw_the_images:
        warnings.warn(
            f"{segmentor.loader} of the config reads the same files as train_dataloader: what helps on images that the "
            "segmentor has seen says nothing of others; give images that it has not seen",
            stacklevel=3,
        )
    cut = count - round(judge * count)
    return ClipScorer(segmentor, order[:cut], order[cut:], seed)


def _look(segmentor: TrainedSegmentor, bare: Scored) -> None:
    """Refuse labels that decide nothing, and warn where the bare segmentor is right nearly everywhere."""
    labelled = (bare.choosing.labelled + bare.judging.labelled).nonzero().flatten().tolist()
    if len(labelled) < 2:
        what = f"labels of one class alone ({segmentor.classes[labelled[0]]})" if labelled else "no labelled pixel"
        raise InputError(
            f"an assessment needs pixels of two classes or more, got {what} in {segmentor.loader}; check "
            "data_prefix.seg_map_path, reduce_zero_label and the data set's metainfo"
        )
    for part, scores in (("that choose", bare.choosing), ("that judge", bare.judging)):
        count = int(scores.has_labels.sum())
        if count < FEWEST_LABELLED:
            raise InputError(
                f"an assessment needs at least {FEWEST_LABELLED} images {part} with labelled pixels, got {count} of "
                f"{len(scores.losses)}; give more labelled images"
            )
    miou = bare.figures[0].accuracy
    if miou >= NEARLY_ALL:
        warnings.warn(
            f"the bare segmentor has an mIoU of {100 * miou:.1f} %: there is hardly anything left to gain, or it was "
            "trained on these images; give images that it has not seen",
            stacklevel=3,
        )


def _rows(finalists: Sequence[Finalist], scorer: ClipScorer) -> tuple[list[Row], int]:
    """The figures of every clip, and which one to use."""
    scored = [scorer.score(finalist) for finalist in finalists]
    costs = [finalist.cost for finalist in finalists]
    choice = cheapest_of_the_best(choosing_scores(one.choosing for one in scored), costs)
    rows = [
        Row(finalist, one.figures[0], one.figures[1], gain_of(scored[0].judging, one.judging, scorer.seed))
        for finalist, one in zip(finalists, scored, strict=True)
    ]
    return rows, choice
