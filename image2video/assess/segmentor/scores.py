"""What predictions of labelled pixels are worth, kept image by image: pixels of one image are not independent."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from image2video.assess.figures import PixelFigures
from image2video.data.seeds import seeded_generator
from image2video.errors import InputError
from image2video.search.rank.calibration import BINS, calibration_error, fit_temperature
from image2video.search.rank.gain import GainEstimate
from image2video.search.score.segmentation import SegmentationScores
from image2video.segmentation import mean_iou

RESAMPLES = 2000
"""How often the images that judge are drawn anew for an interval."""
_SAMPLE_NUMBERS = 1 << 25
_MOST, _FEWEST = 2048, 64
"""Pixels of an image that fit a temperature: as many as 128 MiB hold of all images together, within these bounds."""


class LabelledPixels(Protocol):
    """The labelled pixels of an image: logits `(P, K)`, answers `(P,)` and labels `(P,)`."""

    logits: Tensor
    answers: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Sample:
    """Some labelled pixels of every image, the same under all clips.

    Attributes:
        logits: `(S, K)`.
        labels: `(S,)`.
        images: `(S,)`, which image each is of.
    """

    logits: Tensor
    labels: Tensor
    images: Tensor

    def fit(self) -> float:
        """The temperature that leaves the lowest cross-entropy."""
        return fit_temperature(self.logits, self.labels)

    def losses(self, temperature: float, pixels: Tensor) -> Tensor:
        """The cross-entropy of all `pixels` of each image, `(n,)`, as its sample tells it."""
        each = cross_entropy(self.logits.double() / temperature, self.labels, reduction="none")
        total = torch.zeros(len(pixels), dtype=torch.float64).index_add_(0, self.images, each)
        return total / torch.bincount(self.images, minlength=len(pixels)).clamp_min(1) * pixels


@dataclass(frozen=True)
class PixelScores:
    """The predictions of n images.

    Attributes:
        counts: `(n, 2, K)`: pixels of intersection and union, per image and class.
        losses: `(n,)`: cross-entropy in nats, summed over the labelled pixels.
        scaled_losses: the same after temperature scaling.
        gaps: `(2, 15)`: right answers less confidence, summed over the pixels of each bin; raw and scaled.
        labelled: `(K,)`: pixels with each label.
        sample: pixels to fit a temperature with; None where one was given.
    """

    counts: Tensor
    losses: Tensor
    scaled_losses: Tensor
    gaps: Tensor
    labelled: Tensor
    sample: Sample | None = None

    @property
    def pixels(self) -> Tensor:
        """Labelled pixels of each image, `(n,)`."""
        return self.counts.sum(dim=(1, 2)) // 2

    @property
    def has_labels(self) -> Tensor:
        """Which images have a labelled pixel, `(n,)` bool."""
        return self.pixels > 0

    def labelled_images(self) -> PixelScores:
        """The predictions of the images that have a labelled pixel, without a sample."""
        of, losses, scaled = (values[self.has_labels] for values in (self.counts, self.losses, self.scaled_losses))
        return replace(self, counts=of, losses=losses, scaled_losses=scaled, sample=None)

    def figures(self, temperature: float) -> PixelFigures:
        """What the images together say; scaled figures of images with a sample are those of the sample."""
        pixels = self.pixels.sum().clamp_min(1)
        scaled = (self.gaps[1].abs().sum() / pixels).item()
        if self.sample is not None and len(self.sample.labels):
            scaled = calibration_error(self.sample.logits.double() / temperature, self.sample.labels)
        return PixelFigures(
            images=len(self.losses),
            accuracy=float(mean_iou(self.counts.sum(0))),
            loss=(self.losses.sum() / pixels).item(),
            calibration_error=(self.gaps[0].abs().sum() / pixels).item(),
            scaled_loss=(self.scaled_losses.sum() / pixels).item(),
            scaled_calibration_error=scaled,
            pixel_accuracy=(self.counts[:, 0].sum() / pixels).item(),
        )


def score_pixels(
    predicted: Iterable[LabelledPixels],
    count: int,
    classes: int,
    *,
    temperature: float | None = None,
    seed: int = 0,
    on_image: Callable[[], None] | None = None,
) -> tuple[PixelScores, float]:
    """Score the predictions of `count` images, one after the other.

    Args:
        predicted: of each image.
        count: how many there are.
        classes: K.
        temperature: that logits are divided by for the scaled figures; None to fit it on a sample of these images.
        seed: of the pixels in the sample.
        on_image: called after each.

    Returns:
        The scores, and the temperature.
    """
    most = min(_MOST, max(_FEWEST, _SAMPLE_NUMBERS // (count * classes)))
    counts: list[Tensor] = []
    losses: tuple[list[Tensor], list[Tensor]] = ([], [])
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    gaps, labelled = torch.zeros(2, BINS, dtype=torch.float64), torch.zeros(classes, dtype=torch.int64)
    for number, pixels in enumerate(predicted):
        counts.append(_overlaps(pixels, classes))
        labelled += torch.bincount(pixels.labels, minlength=classes).cpu()
        for row, divisor in enumerate([1.0] if temperature is None else [1.0, temperature]):
            # One map beside the logits at a time: those of a large image fill the memory.
            logits = pixels.logits if row == 0 else pixels.logits / divisor
            chances = logits.log_softmax(1)
            lost = -chances.gather(1, pixels.labels[:, None]).double().sum()
            losses[row].append(lost.cpu())
            gaps[row] += _gaps(chances, pixels)
            del chances
        if temperature is None:
            order = torch.randperm(len(pixels.labels), generator=seeded_generator(seed, number))[:most]
            drawn = order.to(pixels.labels.device)
            which = torch.full((len(order),), number)
            parts.append((pixels.logits[drawn].cpu(), pixels.labels[drawn].cpu(), which))
        del pixels, logits  # before the next image is predicted
        if on_image is not None:
            on_image()
    counted, raw = torch.stack(counts), torch.stack(losses[0])
    if temperature is not None:
        return PixelScores(counted, raw, torch.stack(losses[1]), gaps, labelled), temperature
    sample = Sample(*(torch.cat(values) for values in zip(*parts, strict=True)))
    fitted = sample.fit()
    scaled = sample.losses(fitted, counted.sum(dim=(1, 2)) // 2)
    return PixelScores(counted, raw, scaled, gaps, labelled, sample), fitted


def choosing_scores(scores: Iterable[PixelScores]) -> SegmentationScores:
    """The scores of several clips on the images that choose, with the losses after temperature scaling."""
    found = list(scores)
    return SegmentationScores(
        torch.stack([one.counts for one in found]).int(), torch.stack([one.scaled_losses for one in found])
    )


def gain_of(bare: PixelScores, clip: PixelScores, seed: int = 0) -> GainEstimate:
    """What a clip gains over the image itself, in mIoU and in cross-entropy, raw and scaled.

    Errors are standard deviations over 2000 draws of as many images with replacement (the bootstrap: Efron, The
    Jackknife, the Bootstrap and Other Resampling Plans, 1982), the same images for both, times √(n / (n − 1)). Images
    without a labelled pixel say nothing and are not drawn: a draw of them alone would have no mIoU.

    Args:
        bare: of the images that judge.
        clip: of the same images.
        seed: of the draws.

    Returns:
        The estimate, of the images that have a labelled pixel.

    Raises:
        InputError: fewer than two such images.
    """
    bare, clip = bare.labelled_images(), clip.labelled_images()
    n = len(bare.losses)
    if n < 2:
        raise InputError(f"an interval needs at least 2 images with labelled pixels, got {n}; give more images")
    drawn = torch.randint(n, (RESAMPLES, n), generator=seeded_generator(seed))
    times = torch.zeros(RESAMPLES, n, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn).double())
    all_of_them = torch.ones(1, n, dtype=torch.float64)
    values: dict[str, float] = {}
    own, others = _measured(clip, all_of_them), _measured(bare, all_of_them)
    spread = [a - b for a, b in zip(_measured(clip, times), _measured(bare, times), strict=True)]
    names = (("accuracy", "gain"), ("loss", "loss_gain"), ("scaled_loss", "scaled_loss_gain"))
    for (name, gain), here, there, differences in zip(names, own, others, spread, strict=True):
        values |= {name: here.item(), f"bare_{name}": there.item(), gain: (here - there).item()}
        values[f"{gain}_error"] = (differences.std() * (n / (n - 1)) ** 0.5).item()
    return GainEstimate(images=n, **values)


def _measured(scores: PixelScores, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """mIoU and mean losses where each image counts so many `times`, `(R, n)`: `(R,)` each."""
    n, _, classes = scores.counts.shape
    counts = (times @ scores.counts.double().view(n, -1)).view(-1, 2, classes)
    pixels = (times @ scores.pixels.double()).clamp_min(1)
    return mean_iou(counts), times @ scores.losses / pixels, times @ scores.scaled_losses / pixels


def _overlaps(pixels: LabelledPixels, classes: int) -> Tensor:
    """Pixels of intersection and union of an image, `(2, K)` int64 on the CPU."""
    right = pixels.labels[pixels.answers == pixels.labels]
    both, labelled, answered = (
        torch.bincount(values, minlength=classes).cpu() for values in (right, pixels.labels, pixels.answers)
    )
    return torch.stack([both, labelled + answered - both])


def _gaps(chances: Tensor, pixels: LabelledPixels) -> Tensor:
    """Right answers less confidence, summed over the pixels of each bin of it, `(15,)`; of logarithms `(P, K)`."""
    confidence = chances.gather(1, pixels.answers[:, None]).squeeze(1).exp().double().cpu()
    right = (pixels.answers == pixels.labels).double().cpu()
    places = (confidence * BINS).long().clamp_max(BINS - 1)
    return torch.zeros(BINS, dtype=torch.float64).index_add_(0, places, right - confidence)
