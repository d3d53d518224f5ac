"""One call that answers whether a clip helps a trained classifier."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from image2video.assess.assessment import Assessment, Row
from image2video.assess.choice import smallest_of_the_best
from image2video.assess.figures import Figures
from image2video.assess.finalists import Finalist, bare_finalist, plain_finalists
from image2video.assess.places import places_to_try
from image2video.assess.scoring import Images, Network
from image2video.clip.checks import check_images
from image2video.clip.colours import Values
from image2video.clip.genotype import Genotype
from image2video.clip.schedules import schedule_steps
from image2video.errors import Image2VideoError, InputError
from image2video.protocols import ImageSet, Progress
from image2video.search import Ranking, greedy_frames, rank_genotypes
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
_FEW = 4
"""The fewest candidates that a search is worth starting for."""
_SPARE = 0.9
"""The share of the minutes that is planned; the rest is for what cannot be told beforehand."""
_FRAMES = (2, 3, 5)
_SCHEDULES, _PADDINGS = ("from_zero", "centred"), ("reflection", "zeros")
"""What a ranking chooses from, beside the chains and the averages."""
_SEARCHES = 3
_INSIDE = ("translate_x(1 cell) > translate_y(1 cell)", "flip_x")
_TRIED = 6
"""Chains of the ranking at the image that are tried inside of the network."""
_FIRST = 128
"""Images of the first round of a ranking."""
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
    batch_size: int | None = None,
    autocast: torch.dtype | None = None,
    mean: Values = None,
    std: Values = None,
    about: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Assessment:
    """Say whether averaging over a clip helps a trained classifier on these images, and at which cost (ours).

    Nothing is trained. On one part of the images the bare network is scored, chains are ranked over T, schedule,
    padding and average (`rank_genotypes`), a set of frames is chosen greedily (`greedy_frames`), and both stand beside
    the averages that people use without a search (mirror image, zoom, shifts), and clips that begin inside of the
    network, just before its maps become smaller. Of all these the cheapest is chosen that
    is as good as the best. The other part of the images, which chose nothing, judges: the gain over the bare network
    with its 95 % interval, in accuracy and in cross-entropy after temperature scaling of both. All numbers are those of
    the wrapper that `Assessment.wrap_options` makes.

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
    _check_numbers(max_cost, minutes, candidates, judge)
    began = time.perf_counter()
    device = device_of(model)
    images = _read(data, max_images, seed, device)
    cut = len(images) - round(judge * len(images))
    choosing, judging = images.part(0, cut), images.part(cut, len(images))
    if batch_size is None:
        batch_size = frames_at_once(device)
    channels, height, width = images.images.shape[1:]
    network = Network(model, (channels, height, width), batch_size, autocast, mean, std)
    stages = _Stages(progress)

    finalists = [bare_finalist(), *plain_finalists(max_cost)]
    first = time.perf_counter()
    logits = {"bare": network.predicted(finalists[0], images)}
    per_frame = (time.perf_counter() - first) / len(images)
    _look(logits["bare"][:cut], choosing.labels)
    # The plain averages, and what the two searches find, go through the network once more at the end.
    ends = (sum(finalist.T for finalist in finalists) + _SEARCHES * int(max_cost)) * len(images)
    frames = None if minutes is None else _affordable(minutes, per_frame, ends, len(choosing))
    searches = _Searches(network, choosing, space, seed, max_cost, max(_FEW, candidates // 2), frames, stages)
    for found in (searches.chain(), searches.inside(), searches.frames()):
        if found is not None and found.frames not in [finalist.frames for finalist in finalists]:
            finalists.append(found)
    for number, finalist in enumerate(finalists):
        stages.report("finalists", number, len(finalists))
        if finalist.name not in logits:
            logits[finalist.name] = network.predicted(finalist, images)
    stages.report("finalists", len(finalists), len(finalists))

    rows, choice = _rows(finalists, [logits[finalist.name] for finalist in finalists], choosing, judging)
    batch = min(_BATCH, len(images))
    for number in sorted({0, choice}):
        single, batched = network.costs(finalists[number], batch)
        rows[number] = replace(rows[number], single=single, batched=batched)
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
    )


class _Searches:
    """The two searches on the images that choose."""

    def __init__(
        self,
        network: Network,
        images: Images,
        space: SearchSpace | str,
        seed: int,
        max_cost: float,
        count: int,
        frames: int | None,
        stages: _Stages,
    ) -> None:
        self._network, self._images, self._max_cost, self._stages = network, images, max_cost, stages
        self._count, self._frames = count, frames
        self._options: dict[str, Any] = {
            "space": space,
            "seed": seed,
            "judge": 0.0,
            "batch_size": network.frames_at_once,
            "autocast": network.autocast,
            "mean": network.mean,
            "std": network.std,
        }
        self._chains: list[Genotype] = []
        self.looked = 0
        self.notes: list[str] = []

    def chain(self) -> Finalist | None:
        """The best chain over T, schedule, padding and average; None where the image itself is it."""
        numbers = [T for T in _FRAMES if self._max_cost >= T]
        count = self._count
        if self._frames is not None:  # the first round of a ranking is whole, whatever it costs
            powers = {step for schedule in _SCHEDULES for T in numbers for step in schedule_steps(schedule, T) if step}
            first = min(_FIRST, len(self._images)) * len(powers) * len(_PADDINGS)
            count = min(count, self._frames // _SEARCHES // max(1, first))
        if not numbers or count < _FEW:
            return None
        ranking = rank_genotypes(
            self._network.model,
            _Batches(self._images),
            count=count,
            T=numbers,
            schedule=_SCHEDULES,
            padding=_PADDINGS,
            first_images=_FIRST,
            aggregate=("mean", "mean_prob"),
            max_cost=self._max_cost,
            max_frames=None if self._frames is None else self._frames // _SEARCHES,
            progress=self._stages.of("chains"),
            **self._options,
        )
        self.looked += len({entry.genotype for entry in ranking.entries})
        self._chains = list(dict.fromkeys(entry.genotype for entry in ranking.entries if entry.genotype.chain))[:_TRIED]
        return _found("chain", "the best chain", ranking)

    def inside(self) -> Finalist | None:
        """The best clip that begins inside of the network; None where the image itself is better.

        The chains are those that were best at the image, a shift by one cell, and the mirror image.
        """
        model = self._network.model
        try:
            places = places_to_try(model, self._images.images[:1].to(device_of(model)))
        except Image2VideoError as error:
            self.notes.append(f"Clips inside of the network were not looked at: {error}")
            return None
        names = [place.name for place in places if place.cost(2) <= self._max_cost]
        if not names:
            return None
        ranking = rank_genotypes(
            model,
            _Batches(self._images),
            candidates=[chain for chain in (*self._chains, *map(Genotype.parse, _INSIDE)) if chain.is_geometric],
            T=(2, 3),
            schedule="from_zero",
            aggregate=("mean", "mean_prob"),
            max_cost=self._max_cost,
            clip_at=names,
            first_images=_FIRST,
            max_frames=None if self._frames is None else self._frames // _SEARCHES,
            progress=self._stages.of("inside"),
            # Without a batch size: all frames of an image at a place go through the network at once.
            **{name: value for name, value in self._options.items() if name not in ("space", "batch_size")},
        )
        self.looked += len({(entry.genotype, entry.place) for entry in ranking.entries if entry.place is not None})
        return _found("inside", "the best clip inside of the network", ranking)

    def frames(self) -> Finalist | None:
        """The best set of frames; None where the image itself is it."""
        count = self._count
        if self._frames is not None:
            count = max(_FEW, min(count, self._frames // _SEARCHES // len(self._images)))
        choice = greedy_frames(
            self._network.model,
            _Batches(self._images),
            count=count,
            T=int(self._max_cost),
            start="best",
            progress=self._stages.of("frames"),
            **self._options,
        )
        self.looked += choice.candidates
        if choice.found_nothing:
            return None
        return Finalist.found("frames", "the best set of frames", choice.wrap_options(), choice.best.T)


def _found(name: str, title: str, ranking: Ranking) -> Finalist | None:
    """The best clip of a ranking; None for the image itself."""
    entry = ranking.best_entry
    if not entry.genotype.chain or entry.cost is None:
        return None
    return Finalist.found(name, title, entry.wrap_options(), entry.cost)


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
        gain = estimate_of_logits(torch.stack([logits[0][cut:], z[cut:]]), judging.labels)
        scaled = _scaled(logits[0][cut:] / temperatures[0], z[cut:] / temperature, judging.labels)
        chosen, judged = (Figures.of(part, y, temperature) for part, y in _parts(z, cut, choosing, judging))
        rows.append(Row(finalist, chosen, judged, replace(gain, **scaled)))
    return rows, choice


def _parts(logits: Tensor, cut: int, choosing: Images, judging: Images) -> tuple[tuple[Tensor, Tensor], ...]:
    """Logits and labels of the images that choose, and of those that judge."""
    return (logits[:cut], choosing.labels), (logits[cut:], judging.labels)


def _scaled(bare: Tensor, clip: Tensor, labels: Tensor) -> dict[str, Any]:
    """The cross-entropies of an estimate, from scaled logits whose temperatures the images that choose gave."""
    losses = torch.stack([cross_entropy(z.double(), labels, reduction="none") for z in (bare, clip)])
    difference = losses[1] - losses[0]
    return {
        "scaled_loss": losses[1].mean().item(),
        "bare_scaled_loss": losses[0].mean().item(),
        "scaled_loss_gain": difference.mean().item(),
        "scaled_loss_gain_error": (difference.std() / len(difference) ** 0.5).item(),
    }


def _affordable(minutes: float, per_frame: float, ends: int, choosing: int) -> int:
    """How many frames the searches may look at."""
    frames = int(_SPARE * minutes * 60 / per_frame) - ends
    if frames < _SEARCHES * _FEW * choosing:
        least = (ends + _SEARCHES * _FEW * choosing) * per_frame / 60 / _SPARE
        raise InputError(
            f"minutes={minutes:g} is too little for these images; give at least {least:.2g}, or fewer images "
            "(max_images)"
        )
    return frames


def _check_numbers(max_cost: float, minutes: float | None, candidates: int, judge: float) -> None:
    if not max_cost >= 1:
        raise InputError(f"max_cost must be at least 1, the cost of the image itself, got {max_cost:g}")
    if minutes is not None and not minutes > 0:
        raise InputError(f"minutes must be above 0, got {minutes:g}; leave it out for no limit")
    if candidates < 2 * _FEW:
        raise InputError(f"candidates must be at least {2 * _FEW}, got {candidates}")
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


class _Batches:
    """The images in batches, as often as they are asked for."""

    def __init__(self, images: Images) -> None:
        self._images = images

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self._images.batches(256)


class _Stages:
    """Passes the progress of the searches on, under one name each."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress

    def report(self, stage: str, done: int, total: int) -> None:
        """Report a stage of the assessment itself."""
        if self._progress is not None:
            self._progress(stage, done, total)

    def of(self, name: str) -> Progress | None:
        """The progress of a search under this name."""
        progress = self._progress
        if progress is None:
            return None
        return lambda stage, done, total, **figures: progress(f"{name}: {stage}", done, total, **figures)
