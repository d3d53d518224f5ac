"""A genotype for a model that is already trained: chains are ranked, nothing is trained."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from image2video.clip.chain import check_colours
from image2video.clip.colours import Colours, Values
from image2video.clip.deep_clip import DeepClip
from image2video.clip.genotype import Genotype
from image2video.clip.options import ClipOptions
from image2video.errors import InputError
from image2video.protocols import ImageSet, Progress
from image2video.search.rank.averaging import MANY_FRAMES, check_bare, frames_at_once
from image2video.search.rank.candidates import drawn_clips, split_clips
from image2video.search.rank.clip_candidate import ClipChoices
from image2video.search.rank.estimate import estimate_gain
from image2video.search.rank.halving import Halving, HalvingRules, Predictor
from image2video.search.rank.places import ClipAt, alone, check_chains, check_places, deep_groups, find_places, together
from image2video.search.rank.pool import HeldOut, check_judge
from image2video.search.rank.predictors import images_per_batch, make_predictor
from image2video.search.rank.ranking import Ranking, simplest_of_the_best
from image2video.search.rank.same_frames import SameFrames
from image2video.search.score.network import device_of, in_mode, macs_per_frame
from image2video.search.score.task import ClassificationTask, Task
from image2video.search.space.space import SearchSpace, get_space
from image2video.trace.places import IMAGE
from image2video.version import __version__


def rank_genotypes(
    model: nn.Module,
    data: ImageSet | Iterable[Any],
    *,
    space: SearchSpace | str | None = None,
    candidates: Sequence[Genotype | DeepClip | str] | None = None,
    count: int = 64,
    T: int | Sequence[int] = 3,
    schedule: str | Sequence[str] | None = None,
    seed: int = 0,
    judge: float = 1 / 3,
    first_images: int = 128,
    max_images: int | None = None,
    max_seconds: float | None = None,
    max_frames: int | None = None,
    batch_size: int | None = None,
    padding: str | Sequence[str] = "reflection",
    aggregate: str | Sequence[str] = "mean",
    max_cost: float | None = None,
    clip_at: ClipAt = None,
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

    With `clip_at` clips may begin inside of the network too (ours), and the place is chosen with the chain. For a
    classifier, what lies before a place runs once per image and place, as long as the frames of an image fit into
    `batch_size`; for another task, once per clip. Places share nothing.

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
        candidates: the chains to rank instead; clips at several places, `DeepClip`s or their texts, name their places.
        count: how many candidates to draw, the identity included; as many clips for every list of places together.
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
        batch_size: frames per forward pass; by default 256, and 32 on a CPU, which more would only slow down, unless
            clips begin inside of the network: there all frames of an image should fit.
        padding: see `image2video.clip.sampling.warp`.
        aggregate: how a classifier's frames are averaged: `mean` of the logits, or `mean_prob`, the log of the mean
            probability, which costs nothing more to score.
        max_cost: leave out clips that cost more, as a multiple of the image's multiply-accumulates: at the image the
            number of frames, inside of the network `ClipSite.cost(T)`. `Ranking.left_out` lists them.
        clip_at: where clips may begin: the path of a module (`clip_sites(model)` lists them), `"image"`, several of
            both, or `"all"`: the image and all places, but of places with maps of the same shape and no
            multiply-accumulates between them, only a norm or an activation, the last one alone. None: the image. A clip
            that gives the same frames at several places (1×1 convolutions and norms lie between them, and for slices
            activations) counts at the last one. Chains that change colours begin at the image alone; magnitudes in
            cells count those of each place. A list among the names, `[["image", "layer3"]]` or `"image | layer3"`, are
            places together: a clip of theirs has a chain at each, and is a `DeepClip`.
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
            for images of unknown colours or where no clip begins at the image, a `max_cost` that leaves no clip,
            another average than `mean` for a task that is no classification, a place where no clip can begin, T = 1
            inside of the network, or places together beside given candidates.
        InputTypeError: images that are not float.
        StateError: the model is a `VideoWrap`; with places inside of it, a compiled one.

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
    names = check_places(clip_at)
    check_bare(model)
    source = space if isinstance(space, SearchSpace) else get_space("gentle" if space is None else space)
    if candidates is not None and together(names):
        raise InputError(
            f"clip_at={clip_at!r:.80} draws clips at several places, and candidates are given; clips at several places "
            "name them: candidates=['image: flip_x | layer3: rotate(10)']"
        )
    drawn = drawn_clips(source, names, count, seed) if candidates is None else candidates
    chains, deep = split_clips(drawn)
    colours = Colours.coerce(mean, std) or Colours.of(model)
    for chain in (*chains, *(chain for clip in deep for chain in clip.clips)):
        check_colours(chain, colours)
    mean, std = (None, None) if colours is None else (colours.mean, colours.std)
    task = task or ClassificationTask()
    choices = ClipChoices(T, schedule or source.schedule, padding, aggregate, max_cost)
    like = ClipOptions(interpolation=interpolation, mean=mean, std=std)
    at_image = names == (IMAGE,) and not deep
    if batch_size is None:
        batch_size = frames_at_once(device_of(model)) if at_image else MANY_FRAMES
    # What can be refused without the images is refused before they are read.
    clips = choices.candidates(chains, like) if at_image else ()
    held_out = HeldOut(
        data,
        max_images,
        batch_size=batch_size,
        seed=seed,
        device=device_of(model),
        class_labels=isinstance(task, ClassificationTask),
    )
    if not at_image:
        choices = _at_places(choices, model, alone(names), chains, held_out.example(), task)
        choices = replace(choices, deep=deep_groups(model, deep, held_out.example(), task))
        clips = choices.candidates(chains, like)
    held_out.batch_size = images_per_batch(clips, task, batch_size)
    predictor = make_predictor(model, clips, task, batch_size, autocast)
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
        frame_macs = macs_per_frame(model, held_out.example())
    seconds = time.perf_counter() - started
    ranking = outcome.ranking(best, frames=predictor.frames, seconds=seconds, metric=task.metric, frame_macs=frame_macs)
    ranking = replace(ranking, left_out=choices.left_out)
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
        **({} if at_image or isinstance(entry.genotype, DeepClip) else {"clip_at": entry.place}),
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


def _at_places(
    choices: ClipChoices,
    model: nn.Module,
    names: Sequence[str],
    chains: Sequence[Genotype],
    example: Tensor,
    task: Task,
) -> ClipChoices:
    """The same choices at places of a network; raises what `rank_genotypes` raises for them."""
    places = find_places(model, names, example, task) if names else ()
    check_chains(chains, places)
    return replace(choices, places=places, same=SameFrames.of(task.part(model), places, example))


def _limits(predictor: Predictor, max_seconds: float | None, max_frames: int | None) -> Callable[[], bool] | None:
    """Whether time or frames are spent, as `Halving` asks; None without limits."""
    if max_seconds is None and max_frames is None:
        return None
    deadline = math.inf if max_seconds is None else time.perf_counter() + max_seconds
    most = math.inf if max_frames is None else max_frames
    return lambda: predictor.frames >= most or time.perf_counter() > deadline
