"""Per-pixel classes: logits at the size of the labels, their loss, and intersections over unions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from image2video.errors import InputError, InputTypeError

IGNORE_INDEX = 255
"""The label of pixels that count for nothing (torchvision, mmsegmentation)."""


def label_sized(logits: Tensor, labels: Tensor) -> Tensor:
    """Resize logits `(B, K, h, w)` to the size of labels `(B, H, W)`, unless they have it: bilinear, pixel centres.

    Half precision becomes float32. Raises `InputTypeError` for labels that are not whole numbers, `InputError` for
    shapes that do not go together.
    """
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise InputTypeError(f"labels of pixels must be whole numbers (int64), got {labels.dtype}")
    if logits.ndim != 4 or labels.ndim != 3 or len(logits) != len(labels):
        raise InputError(
            f"logits of pixels must be (B, K, h, w) and their labels (B, H, W), got {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}"
        )
    wide = logits if logits.dtype == torch.float64 else logits.float()
    if wide.shape[-2:] == labels.shape[-2:]:
        return wide
    return interpolate(wide, size=(labels.shape[-2], labels.shape[-1]), mode="bilinear", align_corners=False)


def pixel_loss(
    logits: Tensor, labels: Tensor, *, ignore_index: int = IGNORE_INDEX, label_smoothing: float = 0.0
) -> Tensor:
    """Return the mean cross-entropy in nats over the labelled pixels, 0-d; 0 where no pixel is labelled.

    Logits `(B, K, h, w)` are resized to the labels `(B, H, W)`; pixels of `ignore_index` do not count.
    """
    total = cross_entropy(
        label_sized(logits, labels),
        labels.long(),
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    return total / (labels != ignore_index).sum().clamp_min(1)


def pixel_losses(logits: Tensor, labels: Tensor, *, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Return the cross-entropy of every image, summed over its labelled pixels: `(B,)`, in nats."""
    losses = cross_entropy(label_sized(logits, labels), labels.long(), ignore_index=ignore_index, reduction="none")
    return losses.sum(dim=(1, 2))


def overlaps(logits: Tensor, labels: Tensor, num_classes: int, *, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Count the pixels in which prediction and label agree, and those of either: `(B, 2, num_classes)` int64.

    The counts are the intersection and the union, per image and class. The prediction of a pixel is its largest logit;
    pixels of `ignore_index` belong to nothing. Unions and intersections, summed over classes, are twice the number of
    labelled pixels (see `labelled_pixels`). Raises `InputError` where the logits have another number of classes, or a
    label is none of them.
    """
    sized = label_sized(logits, labels)
    if sized.shape[1] != num_classes:
        raise InputError(f"the logits must be of {num_classes} classes, got {sized.shape[1]}: {tuple(logits.shape)}")
    predicted = sized.argmax(1)
    known = labels != ignore_index
    check_pixel_labels(labels[known], num_classes, ignore_index=ignore_index)
    # One histogram counts the classes of all images: those of image b begin at b · num_classes.
    offset = torch.arange(len(labels), device=labels.device).view(-1, 1, 1) * num_classes

    def per_class(which: Tensor, classes: Tensor) -> Tensor:
        places = (classes.long() + offset)[which]
        return torch.bincount(places, minlength=len(labels) * num_classes).view(-1, num_classes)

    intersection = per_class(known & (predicted == labels), labels)
    union = per_class(known, labels) + per_class(known, predicted) - intersection
    return torch.stack([intersection, union], dim=1)


def check_pixel_labels(labels: Tensor, num_classes: int, *, ignore_index: int = IGNORE_INDEX) -> None:
    """Raise `InputError` for labels of pixels that count and are no class."""
    if labels.numel() == 0:
        return
    low, high = (int(value) for value in labels.aminmax())
    if low < 0 or high >= num_classes:
        raise InputError(
            f"pixels have labels {low} … {high}; with {num_classes} classes they must be 0 … {num_classes - 1}, or "
            f"{ignore_index} where they do not count"
        )


def mean_iou(counts: Tensor) -> Tensor:
    """Return the mean over classes of intersection over union, 0 … 1: counts `(…, 2, K)` give `(…,)` float64.

    The counts are those of all images together, as sums of `overlaps`. Classes with no pixel in labels and predictions
    have no union and are left out; where no class has one, the mean is NaN.
    """
    both, union = counts.double().unbind(-2)
    present = union > 0
    return torch.where(present, both / union.clamp_min(1), 0).sum(-1) / present.sum(-1)


def labelled_pixels(counts: Tensor) -> Tensor:
    """Return how many labelled pixels the counts `(…, 2, K)` of `overlaps` are of: `(…,)` int64."""
    return counts.sum(dim=(-2, -1)) // 2
