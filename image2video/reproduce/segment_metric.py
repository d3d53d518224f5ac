"""mmsegmentation's IoU with all its digits, and that of every class."""

from __future__ import annotations

from typing import Any

from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS


@METRICS.register_module()
class ExactIoU(IoUMetric):
    """`IoUMetric` that does not round, and gives the IoU of every class as well, in percent.

    A class that neither labels nor predictions hold is NaN, and does not count in `mIoU`.
    """

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """`mIoU`, `aAcc`, and `IoU.CLASS` of each class."""
        intersection, union, _, labelled = (
            sum(part.double() for part in column) for column in zip(*results, strict=True)
        )
        shares = 100 * intersection / union
        found = {f"IoU.{name}": float(v) for name, v in zip(self.dataset_meta["classes"], shares, strict=True)}
        return found | {"mIoU": float(shares.nanmean()), "aAcc": float(100 * intersection.sum() / labelled.sum())}
