"""What a training run leaves behind."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from image2video.training.evaluate import Metrics


@dataclass(frozen=True)
class EpochRecord:
    """One epoch: mean training loss, held-out top-1 (0 … 1) and loss (None without held-out images), speed.

    For segmentation top-1 is the share of labelled pixels, and the held-out mIoU stands beside it.
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
        """The fields that have a value, without the epoch."""
        return {name: value for name, value in asdict(self).items() if name != "epoch" and value is not None}


@dataclass(frozen=True)
class TrainResult:
    """The history and the accuracies of a training run.

    best_epoch: the epoch (from 0) with the highest held-out top-1, for segmentation mIoU (the lower loss breaks ties,
    then the earlier one); the last one where nothing was held out.
    test_best, test_last: on the test set, which chose nothing.
    seconds: training and held-out evaluation, over all resumed parts; trained_images: images seen in training.
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
        """Everything but the folder, ready for JSON."""
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
        """What `to_dict` gave."""
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
    return max(range(len(history)), key=lambda i: (history[i].holdout_score, -(history[i].holdout_loss or 0.0), -i))
