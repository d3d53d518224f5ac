"""Accuracy and loss of a classifier over batches."""

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


@dataclass(frozen=True)
class Metrics:
    """top1: share of right answers, 0 … 1; loss: mean cross-entropy in nats, without smoothing; n: images."""

    top1: float
    loss: float
    n: int

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return asdict(self)


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
    """Top-1 and loss of `model` in eval mode; its training mode is restored afterwards.

    batches: a `Batches` (its epoch 0 is read) or any iterable of (images `(B, C, H, W)`, labels `(B,)`).
    autocast: the type of mixed precision, None for full precision.
    Raises `InputError` where the output is not `(B, K)` or a label does not fit K, or where there is no batch.
    """
    device = torch.device(device)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    rows = batches.epoch(0) if isinstance(batches, Batches) else batches
    total = len(batches) if isinstance(batches, Batches) else 0
    sums: list[Tensor] = []
    count = 0
    try:
        for done, (images, labels) in enumerate(rows, start=1):
            images, labels = images.to(device), labels.to(device)
            if channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, autocast) if autocast else nullcontext():
                logits = model(images)
            check_logits(logits, labels)
            right = (logits.argmax(1) == labels).sum()
            loss = cross_entropy(logits.float(), labels, reduction="sum")
            sums.append(torch.stack([right.float(), loss]))
            count += len(labels)
            if progress is not None:
                progress(stage, done, max(total, done))
    finally:
        for module, training in modes.items():
            module.training = training
    if count == 0:
        raise InputError("there was no batch to evaluate on")
    right_sum, loss_sum = torch.stack(sums).cpu().double().sum(0).tolist()
    return Metrics(right_sum / count, loss_sum / count, count)


def check_logits(logits: Any, labels: Tensor) -> None:
    """Refuses, as `InputError`, an output that is not one row of class scores per image."""
    if not isinstance(logits, Tensor):
        raise InputError(f"the model returned {type(logits).__name__}; a classifier returns a tensor (B, classes)")
    if logits.ndim != 2 or len(logits) != len(labels):
        raise InputError(f"the model returned {tuple(logits.shape)} for {len(labels)} images; needed: (B, classes)")
