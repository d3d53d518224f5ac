"""What a test tells beside accuracy: calibration, stability under shifts, and which images are right.

The temperature is fitted on held-out images, for every arm its own; the test set is only reported on.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from image2video.data import DataSource
from image2video.errors import InputError
from image2video.protocols import ImageSet
from image2video.search.rank.calibration import calibration_error, fit_temperature
from image2video.training import Metrics, TrainConfig
from image2video.training.evaluate import check_outputs, check_targets
from image2video.training.modes import eval_mode

SHIFTS = (2, 4)
"""Pixels by which images are shifted, both ways along the diagonal."""
SHIFTED_IMAGES = 1000
"""Of the test set, the first, which are shifted."""


def measured(
    model: nn.Module, config: TrainConfig, data: DataSource, device: torch.device
) -> tuple[Metrics, dict[str, Any]]:
    """Test a classifier: its metrics on the test set, which is read once, and the rest of this module as JSON values.

    Args:
        model: images `(B, C, H, W)` to logits `(B, K)`, on `device`.
        config: batches and memory layout are those of its training.
        data: whose `holdout` fits the temperature.
        device: where it runs.

    Raises:
        InputError: data without held-out images.
    """
    if data.holdout is None:
        raise InputError("a temperature is fitted on held-out images, and there are none; set holdout above 0")
    held, held_labels = predictions(model, data.holdout, config, device)
    logits, labels = predictions(model, data.test, config, device)
    temperature = fit_temperature(held, held_labels)
    right = logits.argmax(1) == labels
    loss = float(cross_entropy(logits.double(), labels))
    metrics = Metrics(int(right.sum()) / len(labels), loss, len(labels))
    record = {
        "temperature": temperature,
        "scaled_loss": float(cross_entropy(logits.double() / temperature, labels)),
        "ece": calibration_error(logits, labels),
        "scaled_ece": calibration_error(logits / temperature, labels),
        "consistency": consistency(model, data.test, logits.argmax(1), config, device),
        "test_images": len(labels),
        "right": packed(right),
    }
    return metrics, record


@torch.no_grad()
def predictions(model: nn.Module, images: ImageSet, config: TrainConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """Logits `(n, K)`, float32, and labels `(n,)` of a set in its order, on the CPU."""
    found: list[Tensor] = []
    labels: list[Tensor] = []
    with eval_mode(model):
        for batch, targets in images.batches(config.batch_size, device=device).epoch(0):
            out = _logits(model, batch, config)
            check_outputs(out, targets)
            check_targets(targets, out.shape[1])
            found.append(out.float().cpu())
            labels.append(targets.cpu())
    return torch.cat(found), torch.cat(labels)


@torch.no_grad()
def consistency(
    model: nn.Module, images: ImageSet, answers: Tensor, config: TrainConfig, device: torch.device
) -> dict[str, float]:
    """Pixels of a shift -> the share of the first `SHIFTED_IMAGES` whose class stays, over both ways of the diagonal.

    The border is reflected, so that no image loses what others keep. `answers` are the classes without a shift.
    """
    kept = dict.fromkeys(SHIFTS, 0)
    seen = 0
    with eval_mode(model):
        for batch, _ in images.batches(config.batch_size, device=device).epoch(0):
            batch = batch[: SHIFTED_IMAGES - seen]
            before = answers[seen : seen + len(batch)]
            for pixels in SHIFTS:
                for way in (pixels, -pixels):
                    after = _logits(model, shifted(batch, way), config).argmax(1).cpu()
                    kept[pixels] += int((after == before).sum())
            seen += len(batch)
            if seen == SHIFTED_IMAGES:
                break
    return {str(pixels): count / (2 * seen) for pixels, count in kept.items()}


def shifted(images: Tensor, pixels: int) -> Tensor:
    """Images `(B, C, H, W)` whose content moves so many whole pixels right and down, the border reflected."""
    size = abs(pixels)
    larger = pad(images, (size, size, size, size), mode="reflect")
    start = size - pixels
    height, width = images.shape[-2:]
    return larger[..., start : start + height, start : start + width]


def packed(right: Tensor) -> str:
    """Answers `(n,)` bool as text: eight to a byte, the first in the highest bit, in base64."""
    return base64.b64encode(np.packbits(right.numpy()).tobytes()).decode("ascii")


def unpacked(record: Mapping[str, Any]) -> np.ndarray:
    """The answers `(n,)` bool of a record of `measured`."""
    bits = np.frombuffer(base64.b64decode(record["right"]), dtype=np.uint8)
    return np.unpackbits(bits, count=record["test_images"]).astype(bool)


def _logits(model: nn.Module, images: Tensor, config: TrainConfig) -> Tensor:
    if config.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    found: Tensor = model(images)
    return found
