"""What a training run leaves behind."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from image2video.training.evaluate import Metrics


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch of a training run gave; held-out figures are None without held-out images.

    Attributes:
        epoch: its number, from 0.
        train_loss: the mean over the images.
        holdout_top1: 0 … 1; for segmentation the share of labelled pixels.
        holdout_loss: in nats.
        lr: the learning rate of the last step.
        images_per_second: speed of the training.
        seconds: training and held-out evaluation.
        holdout_miou: 0 … 1; None for classification.

    """

    epoch: int
    train_loss: float
    holdout_top1: float | None
    holdout_loss: float | None
    lr: float
    images_per_second: float
    seconds: float
    holdout_miou: float | None = None

    @property
    def holdout_score(self) -> float | None:
        """What epochs are chosen by: the held-out mIoU for segmentation, else the held-out top-1."""
        return self.holdout_top1 if self.holdout_miou is None else self.holdout_miou

    def figures(self) -> dict[str, float]:
        """Give the fields that have a value by name, without the epoch.

        Returns:
            The fields.

        """
        return {name: value for name, value in asdict(self).items() if name != "epoch" and value is not None}


@dataclass(frozen=True)
class TrainResult:
    """The history and the accuracies of a training run.

    Attributes:
        history: one record per epoch.
        best_epoch: the epoch (from 0) with the highest held-out top-1, for segmentation mIoU; the lower loss breaks
            ties, then the earlier epoch. The last one where nothing was held out.
        test_best: the weights of that epoch on the test set, which chose nothing.
        test_last: the last weights on the test set.
        seconds: training and held-out evaluation, over all resumed parts.
        trained_images: images seen in training.
        out: the folder of the run; None without one.

    """

    history: tuple[EpochRecord, ...]
    best_epoch: int
    test_best: Metrics
    test_last: Metrics
    seconds: float
    trained_images: int
    out: Path | None = None

    @property
    def best_holdout_top1(self) -> float | None:
        """The held-out top-1 of the best epoch."""
        return self.history[self.best_epoch].holdout_top1

    def to_dict(self) -> dict[str, Any]:
        """Give everything but the folder.

        Returns:
            The fields, ready for JSON.

        """
        return {
            "best_epoch": self.best_epoch,
            "best_holdout_top1": self.best_holdout_top1,
            "test_best": self.test_best.to_dict(),
            "test_last": self.test_last.to_dict(),
            "seconds": self.seconds,
            "trained_images": self.trained_images,
            "history": [asdict(record) for record in self.history],
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any], out: Path | None = None) -> TrainResult:
        """Read what `to_dict` gave.

        Args:
            record: the fields.
            out: the folder of the run.

        Returns:
            The result.

        """
        return cls(
            tuple(EpochRecord(**epoch) for epoch in record["history"]),
            record["best_epoch"],
            Metrics(**record["test_best"]),
            Metrics(**record["test_last"]),
            record["seconds"],
            record["trained_images"],
            out,
        )


def best_epoch(history: list[EpochRecord]) -> int:
    """The index of the epoch to keep; see `TrainResult`."""
    if history[-1].holdout_score is None:
        return len(history) - 1

    def rank(epoch: int) -> tuple[float, float, int]:
        record = history[epoch]
        return (record.holdout_score or 0.0, -(record.holdout_loss or 0.0), -epoch)

    return max(range(len(history)), key=rank)
