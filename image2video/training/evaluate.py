"""Quality and loss of a network over batches: top-1 of a classifier, mIoU of a network that labels pixels."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from image2video.errors import InputError
from image2video.protocols import Batches, Progress
from image2video.segmentation import (
    IGNORE_INDEX,
    check_pixel_labels,
    labelled_pixels,
    mean_iou,
    overlaps,
    pixel_loss,
    pixel_losses,
)
from image2video.training.modes import eval_mode


@dataclass(frozen=True)
class Metrics:
    """What a network gets right.

    Attributes:
        top1: share of right answers, 0 … 1; for segmentation that of labelled pixels.
        loss: mean cross-entropy in nats, without smoothing.
        n: how many images.
        miou: mean intersection over union, 0 … 1, see `image2video.segmentation.mean_iou`; None for classification.

    """

    top1: float
    loss: float
    n: int
    miou: float | None = None

    @property
    def metric(self) -> str:
        """The name of `score`: `top-1`, or `mIoU` for segmentation."""
        return "top-1" if self.miou is None else "mIoU"

    @property
    def score(self) -> float:
        """The figure that epochs are chosen by, 0 … 1."""
        return self.top1 if self.miou is None else self.miou

    def to_dict(self) -> dict[str, Any]:
        """Give the fields that have a value by name.

        Returns:
            The fields, ready for JSON.

        """
        return {name: value for name, value in asdict(self).items() if value is not None}


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Batches | Iterable[tuple[Tensor, Tensor]],
    device: torch.device | str = "cpu",
    *,
    autocast: torch.dtype | None = None,
    channels_last: bool = False,
    progress: Progress | None = None,
    stage: str = "evaluate",
) -> Metrics:
    """Measure quality and loss of a model in eval mode; its mode is restored afterwards.

    Args:
        model: images to logits, `(B, classes)` or `(B, classes, h, w)`.
        batches: a `Batches`, whose epoch 0 is read, or any iterable of (images `(B, C, H, W)`, labels). Labels `(B,)`
            make it classification, labels `(B, H, W)` segmentation, where 255 marks pixels that do not count.
        device: where the model is.
        autocast: the type of mixed precision; None for full precision.
        channels_last: the memory format of the images.
        progress: called after every batch.
        stage: what it is told.

    Returns:
        The figures over all images.

    Raises:
        InputError: the output does not fit the labels, a label is no class, or there is no batch.

    """
    device = torch.device(device)
    rows = batches.epoch(0) if isinstance(batches, Batches) else batches
    total = len(batches) if isinstance(batches, Batches) else 0
    tally = _Tally()
    with eval_mode(model):
        for done, (images, labels) in enumerate(rows, start=1):
            images, labels = images.to(device), labels.to(device)
            if channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, autocast) if autocast else nullcontext():
                logits = model(images)
            check_outputs(logits, labels)
            check_targets(labels, logits.shape[1])
            tally.add(logits, labels)
            if progress is not None and done != total:
                progress(stage, done, max(total, done + 1))
    metrics = tally.metrics()
    if progress is not None:
        score = {"accuracy": metrics.top1} if metrics.miou is None else {"mIoU": metrics.miou}
        progress(stage, done, done, loss=metrics.loss, **score)
    return metrics


class _Tally:
    """Sums over batches, on the device until they are read."""

    def __init__(self) -> None:
        self._images = 0
        self._losses: list[Tensor] = []
        self._right: list[Tensor] = []  # per batch the right answers, or the pixel counts (2, K) of segmentation

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Count one batch."""
        self._images += len(labels)
        if labels.ndim == 1:
            self._right.append((logits.argmax(1) == labels).sum())
            self._losses.append(cross_entropy(logits.float(), labels, reduction="sum"))
        else:
            self._right.append(overlaps(logits, labels, logits.shape[1]).sum(0))
            self._losses.append(pixel_losses(logits, labels).sum())

    def metrics(self) -> Metrics:
        """The figures of all batches; raises `InputError` where there was nothing to count."""
        if self._images == 0:
            raise InputError("nothing to evaluate on: the batches must hold an image")
        loss = float(torch.stack(self._losses).cpu().double().sum())
        right = torch.stack(self._right).cpu().sum(0)
        if right.ndim == 0:
            return Metrics(int(right) / self._images, loss / self._images, self._images)
        pixels = int(labelled_pixels(right))
        if pixels == 0:
            raise InputError(f"no pixel of the {self._images} images is labelled; there is nothing to evaluate on")
        return Metrics(int(right[0].sum()) / pixels, loss / pixels, self._images, float(mean_iou(right)))


def check_outputs(logits: Any, labels: Tensor) -> None:
    """Refuse, as `InputError`, an output that is not `(B, classes)`, or `(B, classes, h, w)` for labels of pixels."""
    task, needed = ("a classifier", "(B, classes)") if labels.ndim == 1 else ("segmentation", "(B, classes, h, w)")
    if not isinstance(logits, Tensor):
        raise InputError(f"the model returned {type(logits).__name__}; {task} returns a tensor {needed}")
    if logits.ndim != (2 if labels.ndim == 1 else 4) or len(logits) != len(labels):
        raise InputError(
            f"the model returned {tuple(logits.shape)} for {len(labels)} images with labels {tuple(labels.shape)}; "
            f"needed: {needed}"
        )


def check_targets(labels: Tensor, classes: int) -> None:
    """Refuse, as `InputError`, labels of images or of pixels that are none of the classes; a GPU would only abort."""
    if labels.ndim != 1:
        check_pixel_labels(labels[labels != IGNORE_INDEX], classes)
    if labels.ndim != 1 or len(labels) == 0:
        return
    low, high = (int(value) for value in labels.aminmax())
    if low < 0 or high >= classes:
        raise InputError(f"images have labels {low} … {high}; with {classes} classes they must be 0 … {classes - 1}")


def batch_loss(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """The mean cross-entropy of a batch in nats, 0-d: over the images, or over the labelled pixels."""
    if labels.ndim == 1:
        return cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
    return pixel_loss(logits, labels, label_smoothing=label_smoothing)
