"""The suite's IoU: it ignores unlabelled pixels, and agrees with mmsegmentation's own."""

import math

import pytest
import torch

pytest.importorskip("mmseg")

from mmseg.evaluation import IoUMetric

from image2video.integrations.openmmlab import CamVidDataset
from image2video.reproduce.segment_metric import ExactIoU


def scores(metric: IoUMetric, prediction: torch.Tensor, label: torch.Tensor) -> dict[str, float]:
    metric.dataset_meta = CamVidDataset.METAINFO
    metric.process({}, [{"pred_sem_seg": {"data": prediction}, "gt_sem_seg": {"data": label}}])
    return metric.compute_metrics(metric.results)


def test_unlabelled_pixels_do_not_count() -> None:
    label = torch.tensor([[[3, 3, 8], [255, 255, 8]]])
    for guess in (0, 8):
        prediction = torch.where(label == 255, guess, label)
        found = scores(ExactIoU(iou_metrics=["mIoU"]), prediction, label)
        assert found["mIoU"] == found["aAcc"] == found["IoU.road"] == found["IoU.car"] == 100
        assert math.isnan(found["IoU.sky"])


def test_scores_are_mmsegmentations_without_its_rounding() -> None:
    generator = torch.Generator().manual_seed(0)
    label, prediction = (torch.randint(11, (1, 20, 30), generator=generator) for _ in range(2))
    ours, stock = (scores(kind(iou_metrics=["mIoU"]), prediction, label) for kind in (ExactIoU, IoUMetric))
    for name in ("mIoU", "aAcc"):
        assert ours[name] == pytest.approx(stock[name], abs=0.006)
    both = ((prediction == 4) & (label == 4)).sum()
    either = ((prediction == 4) | (label == 4)).sum()
    assert ours["IoU.pavement"] == pytest.approx(float(100 * both / either))
