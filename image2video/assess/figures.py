"""What predictions of labelled images are worth: accuracy, cross-entropy, calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor
from torch.nn.functional import cross_entropy

from image2video.search.rank.calibration import calibration_error


@dataclass(frozen=True)
class Figures:
    """The figures of one part of the images.

    Attributes:
        images: how many.
        accuracy: share of right answers, 0 … 1.
        loss: mean cross-entropy, nats.
        calibration_error: expected calibration error (Guo et al., ICML 2017), 15 bins of equal width, 0 … 1.
        scaled_loss: the cross-entropy after temperature scaling.
        scaled_calibration_error: the calibration error after temperature scaling.
    """

    images: int
    accuracy: float
    loss: float
    calibration_error: float
    scaled_loss: float
    scaled_calibration_error: float

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor, temperature: float) -> Figures:
        """The figures of logits.

        Args:
            logits: `(n, K)`.
            labels: `(n,)` int64.
            temperature: that the logits are divided by for the scaled figures, fitted on other images.

        Returns:
            The figures.
        """
        logits = logits.double()
        scaled = logits / temperature
        return cls(
            images=len(labels),
            accuracy=(logits.argmax(1) == labels).double().mean().item(),
            loss=cross_entropy(logits, labels).item(),
            calibration_error=calibration_error(logits, labels),
            scaled_loss=cross_entropy(scaled, labels).item(),
            scaled_calibration_error=calibration_error(scaled, labels),
        )

    def to_dict(self) -> dict[str, Any]:
        """The figures for records.

        Returns:
            Plain JSON values.
        """
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Figures:
        """The figures that `to_dict` gave.

        Args:
            record: what it gave.

        Returns:
            Equal figures.
        """
        return cls(**record)


@dataclass(frozen=True)
class PixelFigures(Figures):
    """The figures of one part of labelled images of a segmentor; pixels that are ignored count nowhere.

    Attributes:
        images: how many.
        accuracy: mIoU of all images together, 0 … 1.
        loss: mean cross-entropy of a labelled pixel, nats.
        calibration_error: expected calibration error over the labelled pixels, 15 bins, 0 … 1.
        scaled_loss: the cross-entropy after temperature scaling; of images that fit the temperature, on a sample of
            their pixels.
        scaled_calibration_error: the calibration error after temperature scaling, likewise.
        pixel_accuracy: share of labelled pixels that are right, 0 … 1.
    """

    pixel_accuracy: float = 0.0
