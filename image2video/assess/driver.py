"""One call that answers whether a clip helps a trained classifier."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from image2video.assess.assessment import Assessment, Row
from image2video.assess.choice import smallest_of_the_best
from image2video.assess.figures import Figures
from image2video.assess.finalists import Finalist, bare_finalist, plain_finalists
from image2video.assess.places import phases_finalist
from image2video.assess.scoring import Images, Network
from image2video.assess.searches import FEW, SEARCHES, Searches
from image2video.assess.tuning import FUSION, clip_to_tune, fine_tuned
from image2video.clip.checks import check_images
from image2video.clip.colours import Values
from image2video.errors import Image2VideoError, InputError
from image2video.inject import plan
from image2video.protocols import ImageSet, Progress
from image2video.search.rank.averaging import check_bare, frames_at_once
from image2video.search.rank.calibration import fit_temperature
from image2video.search.rank.estimate import estimate_of_logits
from image2video.search.rank.pool import HeldOut, check_judge
from image2video.search.score.network import device_of
from image2video.search.space.space import SearchSpace

LEAST_IMAGES = 30
"""Fewer images cannot be divided into some that choose and some that judge."""
NEARLY_ALL = 0.995
"""From this accuracy on nothing is left to gain, or the images are those of the training."""
_SPARE = 0.9
"""The share of the minutes that is planned; the rest is for what cannot be told beforehand."""
_BATCH = 32


def assess(
    model: nn.Module,
    data: ImageSet | Iterable[Any],
    *,
    max_cost: float = 3.0,
    minutes: float | None = None,
    candidates: int = 60,
    space: SearchSpace | str = "pose",
    judge: float = 1 / 3,
    max_images: int | None = None,
    seed: int = 0,
    finetune: int = 0,
    batch_size: int | None = None,
    autocast: torch.dtype | None = None,
    mean: Values = None,
    std: Values = None,
    about: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Assessment:
    """Say whether averaging over a clip helps a trained classifier on these images, and at which cost (ours).

    Nothing is trained unless `finetune` asks for it. On one part of the images the bare network is scored, chains are
    ranked over T, schedule, padding and average (`rank_genotypes`), a set of frames is chosen greedily
    (`greedy_frames`), and both stand beside the averages that people use without a search (mirror image, zoom, shifts,
    other phases of the network's strides), and clips that begin inside of the network, just before its maps become
    smaller. Of all these the cheapest is chosen
    that is as good as the best. The other part of the images, which chose nothing, judges: the gain over the bare
    network with its 95 % interval, in accuracy and in cross-entropy after temperature scaling of both. All numbers are
    those of the wrapper that `Assessment.wrap_options` makes.

    Args:
        model: a trained classifier, images `(N, C, H, W)` -> logits `(N, K)`; not a `VideoWrap`. It stays as it is.
        data: labelled images that it was *not* trained on: an `ImageSet`, or any iterable of `(images, labels)` batches
            as the model takes them, such as a data loader.
        max_cost: the most that an image may cost, as a multiple of the bare network.
        minutes: about how long it may take; then fewer candidates are looked at, and runs are not reproducible.
        candidates: how many chains and frames to look at; half of them are chains, half single frames.
        space: where candidates come from; see `greedy_frames`.
        judge: the share of the images that chooses nothing.
        max_images: at most so many images; 2000 by default. They are held in memory.
        seed: of the draws of images and candidates.
        finetune: epochs of fine-tuning; 0 for none. Copies of the network are trained on the images that choose: with
            the clip averaged, with the clip fused (GSF), and alone for as much compute. It comes on top of `minutes`.
        batch_size: frames per forward pass; by default 32 on a CPU, else 256.
        autocast: reduced precision of the forward passes, such as `torch.bfloat16`.
        mean: how the images are normalised; default what the model's `pretrained_cfg` says.
        std: goes with `mean`.
        about: JSON values for the report, such as the names of model and data.
        progress: called as the work goes on, by stages.

    Returns:
        The clips with their figures, the one to use, and what to say about it.

    Raises:
        InputError: fewer than 30 images, labels of one class or beyond the outputs, a `max_cost` below 1, too few
            minutes for a single candidate, outputs that are no finite logits.
        InputTypeError: images that are not floating point, batches without labels.
        StateError: the model is a `VideoWrap`, which averages already: assess `model.unwrap()`.

    Example:
        >>> net = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))
        >>> loader = [(torch.rand(30, 3, 16, 16), torch.arange(30) % 3) for _ in range(4)]
        >>> assessment = assess(net, loader, candidates=8, max_cost=2)
        >>> assessment.bare.judging.images
        40
    """
    check_bare(model)
    check_judge(judge)
    check_numbers(max_cost, minutes=minutes, candidates=candidates, judge=judge, finetune=finetune)
    began = time.perf_counter()
    device = device_of(model)
    images = _read(data, max_images, seed, device)
    cut = len(images) - round(judge * len(images))
    choosing, judging = images.part(0, cut), images.part(cut, len(images))
    if batch_size is None:
        batch_size = frames_at_once(device)
    channels, height, width = images.images.shape[1:]
    if finetune and not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(
            "finetune needs parameters with a gradient, got a model that is all frozen; use model.requires_grad_()"
        )
    if finetune:  # before hours of work: what no fusion finds a site in is refused
        plan(model, fusion=FUSION, input_size=(channels, height, width))
    network = Network(model, (channels, height, width), batch_size, autocast, mean, std)

    finalists = [bare_finalist(), *plain_finalists(max_cost)]
    first = time.perf_counter()
    logits = {"bare": network.predicted(finalists[0], images)}
    per_frame = (time.perf_counter() - first) / len(images)
    _look(logits["bare"][:cut], choosing.labels)
    # The plain averages, and what the two searches find, go through the network once more at the end.
    finalists += _phases(model, images, device, max_cost)
    ends = (sum(finalist.T for finalist in finalists) + SEARCHES * int(max_cost)) * len(images)
    frames = None if minutes is None else _affordable(minutes, per_frame, ends, len(choosing))
    searches = Searches(network, choosing, space, seed, max_cost, max(FEW, candidates // 2), frames, progress)
    for found in (searches.chain(), searches.inside(), searches.frames()):
        if found is not None and found.frames not in [finalist.frames for finalist in finalists]:
            finalists.append(found)
    for number, finalist in enumerate(finalists, start=1):
        if finalist.name not in logits:
            logits[finalist.name] = network.predicted(finalist, images)
        if progress is not None:
            progress("finalists", number, len(finalists))

    rows, choice = _rows(finalists, [logits[finalist.name] for finalist in finalists], choosing, judging)
    tuning = None
    if finetune:
        clip = clip_to_tune(rows, choice)
        bare = logits["bare"][cut:]
        tuning = fine_tuned(network, clip, bare, choosing, judging, epochs=finetune, seed=seed, progress=progress)
    batch = min(_BATCH, len(images))
    timed = sorted({0, choice})
    for number, cost in zip(timed, network.costs([finalists[number] for number in timed], batch), strict=True):
        rows[number] = replace(rows[number], single=cost.single, batched=cost.batched, single_ms=cost.single_ms)
    return Assessment(
        rows=tuple(rows),
        choice=choice,
        candidates=searches.looked,
        max_cost=max_cost,
        temperature=fit_temperature(logits["bare"][:cut].double(), choosing.labels),
        batch=batch,
        seconds=time.perf_counter() - began,
        input_size=(channels, height, width),
        notes=tuple(searches.notes),
        about=dict(about or {}),
        tuning=tuning,
    )


def _rows(
    finalists: Sequence[Finalist], logits: Sequence[Tensor], choosing: Images, judging: Images
) -> tuple[list[Row], int]:
    """The figures of every clip, and which one to use."""
    cut = len(choosing)
    temperatures = [fit_temperature(z[:cut].double(), choosing.labels) for z in logits]
    costs = [finalist.cost for finalist in finalists]
    choice = smallest_of_the_best([z[:cut] for z in logits], choosing.labels, temperatures, costs)
    rows = []
    for finalist, z, temperature in zip(finalists, logits, temperatures, strict=True):
        pair = torch.stack([logits[0][cut:], z[cut:]])
        rows.append(
            Row(
                finalist,
                choosing=Figures.of(z[:cut], choosing.labels, temperature),
                judging=Figures.of(z[cut:], judging.labels, temperature),
                gain=estimate_of_logits(pair, judging.labels, (temperatures[0], temperature)),
            )
        )
    return rows, choice


def _phases(model: nn.Module, images: Images, device: torch.device, max_cost: float) -> list[Finalist]:
    """The clip of the network's strides, where there is one. A network that cannot be traced is noted later."""
    try:
        found = phases_finalist(model, images.images[:1].to(device), max_cost)
    except Image2VideoError:
        return []
    return [] if found is None else [found]


def _affordable(minutes: float, per_frame: float, ends: int, choosing: int) -> int:
    """How many frames the searches may look at."""
    frames = int(_SPARE * minutes * 60 / per_frame) - ends
    if frames < SEARCHES * FEW * choosing:
        least = (ends + SEARCHES * FEW * choosing) * per_frame / 60 / _SPARE
        raise InputError(
            f"minutes={minutes:g} is too little for these images; give at least {least:.2g}, or fewer images "
            "(max_images)"
        )
    return frames


def check_numbers(
    max_cost: float, *, minutes: float | None, candidates: int, judge: float = 1 / 3, finetune: int = 0
) -> None:
    """Refuse numbers that `assess` cannot use: a command does so before it opens a folder."""
    if not max_cost >= 1:
        raise InputError(f"max_cost must be at least 1, the cost of the image itself, got {max_cost:g}")
    if minutes is not None and not minutes > 0:
        raise InputError(f"minutes must be above 0, got {minutes:g}; leave it out for no limit")
    if candidates < 2 * FEW:
        raise InputError(f"candidates must be at least {2 * FEW}, got {candidates}")
    if finetune < 0:
        raise InputError(f"finetune must be a number of epochs, or 0 for none, got {finetune}")
    if finetune and max_cost < 2:
        raise InputError(
            f"fine-tuning compares clips of two frames and more; max_cost must be at least 2, got {max_cost:g}"
        )
    if judge == 0:
        raise InputError("judge must be above 0: what chooses a clip flatters it, and some images have to judge")


def _read(data: ImageSet | Iterable[Any], max_images: int | None, seed: int, device: torch.device) -> Images:
    """The images and labels in memory, in an order that the seed draws."""
    stream = HeldOut(data, 2000 if max_images is None else max_images, batch_size=64, seed=seed, device=device)
    read = [(images.cpu(), labels.cpu()) for images, labels in stream.stream()]
    images, labels = torch.cat([x for x, _ in read]), torch.cat([y for _, y in read])
    check_images(images)
    classes = labels.unique().tolist()
    if len(images) < LEAST_IMAGES:
        raise InputError(
            f"an assessment needs at least {LEAST_IMAGES} labelled images, got {len(images)}: a third of them judges, "
            "and to decide a gain of one point takes some hundred to some thousand"
        )
    if len(classes) < 2:
        raise InputError(
            f"an assessment needs images of two classes or more, got {len(images)} of class {classes[0]}; shuffle the "
            "loader, or give images of other classes"
        )
    return Images(images, labels)


def _look(logits: Tensor, labels: Tensor) -> None:
    """Warn where the bare network is right nearly always."""
    accuracy = (logits.argmax(1) == labels).double().mean().item()
    if accuracy >= NEARLY_ALL:
        warnings.warn(
            f"the bare network is right on {100 * accuracy:.1f} % of the images: there is nothing left to gain, or it "
            "was trained on them; give images that it has not seen",
            stacklevel=3,
        )
