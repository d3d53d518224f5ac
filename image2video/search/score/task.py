"""What a search is for: how frame outputs become predictions, what they cost, and how good they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from image2video.clip.image_to_video import frames_to_clip
from image2video.errors import InputError, InputTypeError, UnsupportedError
from image2video.fusion.config import FusionConfig
from image2video.inject import Plan, plan
from image2video.search.score.scores import PairedScores, Scores
from image2video.search.score.segmentation import SegmentationScores
from image2video.segmentation import IGNORE_INDEX, label_sized, overlaps, pixel_loss, pixel_losses

Unwarp = Callable[[Tensor], Tensor]
"""Frame maps `(B·T, K, h, w)` back to the reference image and averaged: `(B, K, h, w)`."""

TASKS = ("classification", "segmentation")
"""The tasks that `get_task` knows by name."""


class Task(ABC):
    """What the network is for. `search(task=…)` takes any; model and loaders need only fit it.

    The model is any module whose outputs for N images are what `check` lets pass; the loaders give `(images, labels)`
    batches with the labels that `loss` takes. A task of your own says how frames' outputs become predictions, gives a
    loss, and one number per image, more of which is better:

    >>> import torch
    >>> class Regression(Task):
    ...     name, metric = "regression", "share within 0.1"
    ...     def check(self, outputs, rows):
    ...         if outputs.shape != (rows, 1):
    ...             raise InputError(f"needed ({rows}, 1), got {tuple(outputs.shape)}")
    ...     def predict(self, outputs, T, unwarp):
    ...         return frames_to_clip(outputs, T).mean(1)
    ...     def loss(self, predictions, labels):
    ...         return (predictions[:, 0] - labels).square().mean()
    ...     def per_image(self, predictions, labels):
    ...         error = (predictions[:, 0] - labels).abs()
    ...         return (error < 0.1).float(), error.square()
    >>> Regression().predict(torch.tensor([[1.0], [2.0], [5.0], [6.0]]), 2, lambda maps: maps)
    tensor([[1.5000],
            [5.5000]])

    Attributes:
        name: of the task, for records.
        metric: the name of what `Scores.accuracy` is.
    """

    name: ClassVar[str]
    metric: ClassVar[str]

    def plan(
        self, network: nn.Module, fusion: FusionConfig, input_size: tuple[int, int, int]
    ) -> tuple[nn.Module, Plan]:
        """Say which part of a network mixes its frames, and where: all of it, unless a task knows better.

        Args:
            network: the bare network.
            fusion: how frames mix.
            input_size: (C, H, W) of the images.

        Returns:
            The part, and its plan; raises what `image2video.plan` raises.
        """
        return network, plan(network, fusion=fusion, input_size=input_size)

    def plan_at(
        self, network: nn.Module, fusion: FusionConfig, input_size: tuple[int, int, int], places: Sequence[str]
    ) -> tuple[nn.Module, Plan]:
        """Do what `plan` does for a clip whose frames are made and moved at places of the network.

        Args:
            network: the bare network.
            fusion: how frames mix.
            input_size: (C, H, W) of the images.
            places: paths of modules in the order of the network; `"image"` may come first.

        Returns:
            The part, and its plan.

        Raises:
            UnsupportedError: a task with a `plan` of its own and no `plan_at`.
            InputError: what `image2video.plan` refuses.
        """
        if type(self).plan is not Task.plan:
            raise UnsupportedError(
                f"{type(self).__name__} plans its network itself and knows no places inside of it, got "
                f"clip_at={list(places)}; let the clip begin with the image, or give the task a plan_at"
            )
        return network, plan(network, fusion=fusion, input_size=input_size, clip_at=tuple(places))

    def part(self, network: nn.Module) -> nn.Module:
        """Return the part of a network in which clips may begin and move: that of `plan_at`.

        Args:
            network: the bare network.

        Returns:
            The network itself, unless the task says otherwise.
        """
        return network

    @abstractmethod
    def check(self, outputs: Any, rows: int) -> None:
        """Raise `InputTypeError` or `InputError` where outputs are not what the task needs.

        Args:
            outputs: what the network returned.
            rows: the number of frames.
        """

    @abstractmethod
    def predict(self, outputs: Any, T: int, unwarp: Unwarp) -> Any:
        """The predictions of images from the outputs of their frames.

        Args:
            outputs: of B·T frames, `(B·T, …)`.
            T: frames of an image.
            unwarp: brings maps back through the inverse of what made the frames, and averages them over T.

        Returns:
            `(B, …)`, or tensors in containers.
        """

    @abstractmethod
    def loss(self, predictions: Any, labels: Tensor) -> Tensor:
        """The loss of a batch, to be minimised.

        Args:
            predictions: what `predict` gave.
            labels: the labels of the batch.

        Returns:
            The mean, 0-d.
        """

    @abstractmethod
    def per_image(self, predictions: Any, labels: Tensor) -> tuple[Tensor, Tensor]:
        """What `collect` needs of every image.

        Args:
            predictions: what `predict` gave.
            labels: the labels of the batch.

        Returns:
            Its quality `(B, …)` and its loss `(B,)`.
        """

    def collect(self, quality: Tensor, loss: Tensor) -> Scores:
        """The scores of V variants on n images; here the means of one number per image.

        Args:
            quality: `(V, n, …)`, from `per_image`.
            loss: `(V, n)`, likewise.

        Returns:
            The scores.
        """
        return PairedScores.from_images(quality, loss)


class ClassificationTask(Task):
    """Logits `(B, K)`, labels `(B,)`: averaged over the frames, cross-entropy, the share of right answers."""

    name = "classification"
    metric = "accuracy"

    def check(self, outputs: Any, rows: int) -> None:
        """Refuse what is no logits `(rows, K)`.

        Args:
            outputs: what the network returned.
            rows: the number of frames.

        Raises:
            InputTypeError: outputs that are no tensor.
            InputError: another shape.
        """
        _check_tensor(outputs, "classification needs a classifier that returns logits (B, K)")
        if outputs.ndim != 2 or outputs.shape[0] != rows:
            raise InputError(
                f"the backbone returned shape {tuple(outputs.shape)} for {rows} frames; classification needs logits "
                f"({rows}, K)"
            )
        if outputs.shape[1] < 2:
            raise InputError(
                f"the backbone returned {outputs.shape[1]} logit per frame; classification needs one for each of 2 or "
                "more classes: put (0, logit) in its place, or give a task= of your own"
            )

    def predict(self, outputs: Tensor, T: int, unwarp: Unwarp) -> Tensor:
        """The mean of the logits over the frames (Casarin et al., CVPR 2024).

        Args:
            outputs: logits `(B·T, K)`.
            T: frames of an image.
            unwarp: not used.

        Returns:
            `(B, K)`, in float32 where the logits are of half precision.
        """
        return frames_to_clip(_wide(outputs), T).mean(1)

    def loss(self, predictions: Tensor, labels: Tensor) -> Tensor:
        """The mean cross-entropy in nats.

        Args:
            predictions: logits `(B, K)`.
            labels: `(B,)`.

        Returns:
            The loss, 0-d.
        """
        check_labels(labels, predictions.shape[1])
        return cross_entropy(predictions, labels)

    def per_image(self, predictions: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Right or wrong, and the cross-entropy.

        Args:
            predictions: logits `(B, K)`.
            labels: `(B,)`.

        Returns:
            Two `(B,)` float; the first holds 0 or 1.
        """
        check_labels(labels, predictions.shape[1])
        losses = cross_entropy(_wide(predictions), labels, reduction="none")
        return (predictions.argmax(dim=1) == labels).to(losses.dtype), losses


class SegmentationTask(Task):
    """Logits of pixels `(B, K, h, w)`, labels `(B, H, W)`: unwarped and averaged, cross-entropy, mIoU.

    Where logits and labels differ in size, the averaged logits are resized to the labels (bilinear).

    Args:
        num_classes: K.
        ignore_index: the label of pixels that do not count.

    Raises:
        InputError: fewer than two classes.
        InputTypeError: a number of classes that is no whole number.
    """

    name = "segmentation"
    metric = "mIoU"

    def __init__(self, num_classes: int, ignore_index: int = IGNORE_INDEX) -> None:
        if isinstance(num_classes, bool) or not isinstance(num_classes, int):
            raise InputTypeError(f"num_classes must be a whole number of at least 2, got {num_classes!r:.80}")
        if num_classes < 2:
            raise InputError(f"segmentation needs at least 2 classes, got num_classes={num_classes}")
        self.num_classes = num_classes
        self.ignore_index = ignore_index

    def check(self, outputs: Any, rows: int) -> None:
        """Refuse what is no logits `(rows, num_classes, h, w)`.

        Args:
            outputs: what the network returned.
            rows: the number of frames.

        Raises:
            InputTypeError: outputs that are no tensor.
            InputError: another shape.
        """
        needed = f"({rows}, {self.num_classes}, h, w)"
        _check_tensor(outputs, "segmentation needs a network that returns logits of pixels (B, K, h, w)")
        if outputs.ndim != 4 or outputs.shape[:2] != (rows, self.num_classes):
            raise InputError(
                f"the backbone returned shape {tuple(outputs.shape)} for {rows} frames; segmentation with "
                f"{self.num_classes} classes needs logits {needed}"
            )

    def predict(self, outputs: Tensor, T: int, unwarp: Unwarp) -> Tensor:
        """The unwarped mean of the logits.

        Args:
            outputs: logits `(B·T, K, h, w)`.
            T: not used: `unwarp` knows it.
            unwarp: see `Task.predict`.

        Returns:
            `(B, K, h, w)`, in float32 where the logits are of half precision.
        """
        return unwarp(_wide(outputs))

    def full_size(self, predictions: Tensor, labels: Tensor) -> Tensor:
        """Predictions at the size of the labels, resized where they differ (bilinear).

        Args:
            predictions: logits `(B, K, h, w)`.
            labels: `(B, H, W)`.

        Returns:
            `(B, K, H, W)`.
        """
        return label_sized(predictions, labels)

    def loss(self, predictions: Tensor, labels: Tensor) -> Tensor:
        """The mean cross-entropy of a labelled pixel in nats.

        Args:
            predictions: logits `(B, K, h, w)`.
            labels: `(B, H, W)`.

        Returns:
            The loss, 0-d; 0 where no pixel is labelled.
        """
        return pixel_loss(predictions, labels, ignore_index=self.ignore_index)

    def per_image(self, predictions: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels of intersection and union, and the summed cross-entropy.

        Args:
            predictions: logits `(B, K, h, w)`.
            labels: `(B, H, W)`.

        Returns:
            `(B, 2, K)` and `(B,)`.
        """
        sized = self.full_size(predictions, labels)
        counts = overlaps(sized, labels, self.num_classes, ignore_index=self.ignore_index)
        return counts, pixel_losses(sized, labels, ignore_index=self.ignore_index)

    def collect(self, quality: Tensor, loss: Tensor) -> SegmentationScores:
        """mIoU and mean pixel loss of V variants."""
        # Half the memory, since all images are kept; no float64 on MPS.
        return SegmentationScores(quality.cpu().int(), loss.cpu().double())


def get_task(name: str, num_classes: int) -> Task:
    """The task of that name.

    Args:
        name: `classification` or `segmentation`.
        num_classes: K.

    Returns:
        The task.

    Raises:
        InputError: an unknown name; the message lists all.
    """
    if name == "classification":
        return ClassificationTask()
    if name == "segmentation":
        return SegmentationTask(num_classes)
    raise InputError(f"unknown task {name!r}; choose one of {', '.join(TASKS)}, or pass a Task of your own")


IGNORED = -100
"""The label that torch's cross-entropy leaves out."""


def _check_tensor(outputs: Any, needed: str) -> None:
    if not isinstance(outputs, Tensor):
        raise InputTypeError(f"the backbone returned {type(outputs).__name__}; {needed}")


def check_labels(labels: Tensor, classes: int) -> None:
    """Raise `InputError` for labels of images that are no class of the network."""
    if labels.is_floating_point():
        return  # shares of classes
    known = labels[labels != IGNORED]
    if not known.numel():
        return
    low, high = (int(value) for value in known.aminmax())
    if high >= classes or low < 0:
        raise InputError(
            f"labels must be classes of the network, 0 … {classes - 1}, got {low} … {high}; give the network as many "
            "classes as the data has (num_classes=…, reset_classifier), or map the labels to its classes"
        )


def _wide(outputs: Tensor) -> Tensor:
    """Float32 in place of half precision: sums over frames and losses need it."""
    return outputs if outputs.dtype.itemsize >= 4 else outputs.float()
