"""Held-out scores of segmentation: mIoU and pixel loss of several variants on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from image2video.search.score.scores import Scores
from image2video.segmentation import labelled_pixels, mean_iou


@dataclass(frozen=True)
class SegmentationScores(Scores):
    """mIoU and mean pixel loss of V variants on the same n images, kept image by image.

    The mIoU is of all images together: the mean over classes of (summed intersections) / (summed unions). Classes with
    no pixel in labels and predictions are left out, variant by variant. The loss is the mean over all labelled pixels.

    Neither is a mean over images, so their errors are those of the infinitesimal jackknife (Efron, The Jackknife, the
    Bootstrap and Other Resampling Plans, 1982, ch. 6). With image i weighted w_i, mIoU = mean_c(Σ w_i I_ic / Σ w_i
    U_ic); its derivative at w = 1 is the image's influence φ_i = mean_c((I_ic − IoU_c U_ic) / U_c), the φ_i sum to
    zero, and the variance is Σ φ_i². The influence on a difference of two variants is the difference of their
    influences, which is what pairs them. For the loss φ_i = (l_i − mean p_i) / Σ p_i with p_i labelled pixels. Which
    classes are present is taken as given, and images as drawn independently.

    Args:
        counts: `(V, n, 2, K)` int32: pixels of intersection and union, per image and class.
        losses: `(V, n)` float64: cross-entropy in nats, summed over the image's labelled pixels.
    """

    counts: Tensor
    losses: Tensor

    @property
    def n(self) -> int:  # type: ignore[override]
        """Number of images."""
        return self.losses.shape[1]

    @property
    def variants(self) -> int:
        """How many variants were scored."""
        return self.losses.shape[0]

    def __add__(self, other: SegmentationScores) -> SegmentationScores:
        return SegmentationScores(
            torch.cat([self.counts, other.counts], dim=1), torch.cat([self.losses, other.losses], dim=1)
        )

    def pick(self, variants: Sequence[int]) -> SegmentationScores:
        """The scores of some variants, in the order given."""
        rows = list(variants)
        return SegmentationScores(self.counts[rows], self.losses[rows])

    def accuracy(self, variant: int) -> float:
        """The mIoU, 0 … 1; NaN where no pixel is labelled."""
        return float(mean_iou(self.counts[variant].sum(0)))

    def mean_loss(self, variant: int) -> float:
        """The mean cross-entropy of a labelled pixel, in nats; 0 where no pixel is labelled."""
        return float(self.losses[variant].sum()) / max(int(labelled_pixels(self.counts[variant]).sum()), 1)

    def accuracy_error(self, variant: int) -> float:
        """The standard error of the mIoU."""
        return _norm(self._influence(variant))

    def loss_error(self, variant: int) -> float:
        """The standard error of the mean loss."""
        return _norm(self._loss_influence(variant))

    def accuracy_gap(self, a: int, b: int) -> tuple[float, float]:
        """mIoU(a) − mIoU(b), and its standard error over the images (paired)."""
        return self.accuracy(a) - self.accuracy(b), _norm(self._influence(a) - self._influence(b))

    def loss_gap(self, a: int, b: int) -> tuple[float, float]:
        """mean_loss(a) − mean_loss(b), and its standard error over the images (paired)."""
        return self.mean_loss(a) - self.mean_loss(b), _norm(self._loss_influence(a) - self._loss_influence(b))

    def _influence(self, variant: int) -> Tensor:
        """The derivative of the mIoU in the weight of every image, `(n,)`."""
        both, union = self.counts[variant].double().unbind(-2)
        all_both, all_union = both.sum(0), union.sum(0)
        present = all_union > 0
        share = (both - all_both / all_union.clamp_min(1) * union) / all_union.clamp_min(1)
        return share.sum(1) / present.sum().clamp_min(1)

    def _loss_influence(self, variant: int) -> Tensor:
        pixels = labelled_pixels(self.counts[variant]).double()
        return (self.losses[variant] - self.mean_loss(variant) * pixels) / pixels.sum().clamp_min(1)


def _norm(influence: Tensor) -> float:
    return float(influence.square().sum().sqrt())
