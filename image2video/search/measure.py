"""Held-out scores of several variants on the same images, with the standard errors of their differences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.functional import cross_entropy

from image2video.errors import InputError


@dataclass(frozen=True)
class PairedScores:
    """Accuracy and loss of V variants on the same n images, as sums; two of them add up to the scores on both sets.

    Args:
        n: number of images.
        correct: `(V,)` float64, images classified right.
        loss: `(V,)` float64, summed cross-entropy in nats.
        correct_products: `(V, V)` float64, sums of products, from which the error of every difference follows.
        loss_products: the same of the losses.

    """

    n: int
    correct: Tensor
    loss: Tensor
    correct_products: Tensor
    loss_products: Tensor

    @classmethod
    def from_images(cls, correct: Tensor, loss: Tensor) -> PairedScores:
        """The scores of per-image values `(V, n)`."""
        right, losses = correct.cpu().double(), loss.cpu().double()  # MPS has no float64
        return cls(right.shape[1], right.sum(1), losses.sum(1), right @ right.T, losses @ losses.T)

    def __add__(self, other: PairedScores) -> PairedScores:
        return PairedScores(
            self.n + other.n,
            self.correct + other.correct,
            self.loss + other.loss,
            self.correct_products + other.correct_products,
            self.loss_products + other.loss_products,
        )

    def pick(self, variants: Sequence[int]) -> PairedScores:
        """The scores of some variants, in the order given."""
        v = list(variants)
        products = [m[v][:, v] for m in (self.correct_products, self.loss_products)]
        return PairedScores(self.n, self.correct[v], self.loss[v], products[0], products[1])

    def accuracy(self, variant: int) -> float:
        """The share of images classified right, 0 … 1."""
        return float(self.correct[variant]) / self.n

    def mean_loss(self, variant: int) -> float:
        """The mean cross-entropy in nats."""
        return float(self.loss[variant]) / self.n

    def accuracy_error(self, variant: int) -> float:
        """The standard error of `accuracy`."""
        p = self.accuracy(variant)
        return (max(p * (1 - p), 0.0) / self.n) ** 0.5

    def loss_error(self, variant: int) -> float:
        """The standard error of `mean_loss`."""
        return self._error(self.loss, self.loss_products, [(variant, 1.0)])

    def accuracy_gap(self, a: int, b: int) -> tuple[float, float]:
        """accuracy(a) − accuracy(b), and its standard error over the images (paired)."""
        error = self._error(self.correct, self.correct_products, [(a, 1.0), (b, -1.0)])
        return float(self.correct[a] - self.correct[b]) / self.n, error

    def loss_gap(self, a: int, b: int) -> tuple[float, float]:
        """mean_loss(a) − mean_loss(b), and its standard error over the images (paired)."""
        error = self._error(self.loss, self.loss_products, [(a, 1.0), (b, -1.0)])
        return float(self.loss[a] - self.loss[b]) / self.n, error

    def _error(self, sums: Tensor, products: Tensor, terms: list[tuple[int, float]]) -> float:
        mean = sum(sign * float(sums[v]) for v, sign in terms) / self.n
        square = sum(s * t * float(products[v, w]) for v, s in terms for w, t in terms) / self.n
        return (max(square - mean * mean, 0.0) / self.n) ** 0.5


def per_image(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Right or wrong (0 or 1) and the cross-entropy of every image: `(B, K)` and `(B,)` give two `(B,)` float."""
    losses = cross_entropy(logits.float() if logits.dtype != torch.float64 else logits, labels, reduction="none")
    return (logits.argmax(dim=1) == labels).to(losses.dtype), losses


def score_variants(
    variants: Callable[[Tensor], list[Tensor]],
    batches: Iterable[tuple[Tensor, Tensor]],
    accelerator: Accelerator | None = None,
    *,
    on_batch: Callable[[int], None] | None = None,
) -> PairedScores:
    """Score what `variants(images)` returns, one `(B, K)` of logits per variant, over all batches of all processes.

    `on_batch` is called with the number of images of every batch. Raises `InputError` where there is no image, or a
    loss is NaN or infinite.
    """
    right: list[Tensor] = []
    losses: list[Tensor] = []
    for images, labels in batches:
        if len(labels) == 0:  # a process's share of a small last batch
            continue
        scored = [per_image(logits, labels) for logits in variants(images)]
        right.append(torch.stack([r for r, _ in scored]))
        losses.append(torch.stack([x for _, x in scored]))
        if on_batch is not None:
            on_batch(len(labels))
    scores = PairedScores.from_images(torch.cat(right, 1), torch.cat(losses, 1)) if right else None
    if accelerator is not None and accelerator.num_processes > 1:
        scores = _reduced(scores, accelerator)
    if scores is None or scores.n == 0:
        raise InputError("there are no held-out images to score on; give more images or a larger validation share")
    bad = [v for v, value in enumerate(scores.loss.tolist()) if not abs(value) < float("inf")]
    if bad:
        raise InputError(
            f"the held-out loss of variant {bad[0]} of {len(scores.loss)} is {float(scores.loss[bad[0]])}: "
            "the network gives NaN or infinite logits; lower the learning rate or check the weights"
        )
    return scores


def _reduced(scores: PairedScores | None, accelerator: Accelerator) -> PairedScores | None:
    """The sum over all processes; a process whose share was empty takes part with zeros."""
    count = torch.tensor([0 if scores is None else len(scores.correct)], device=accelerator.device)
    V = int(accelerator.gather(count).max())
    if V == 0:
        return None
    if scores is None:
        scores = PairedScores.from_images(torch.zeros(V, 0), torch.zeros(V, 0))
    parts = [torch.tensor([scores.n], dtype=torch.float64), scores.correct, scores.loss]
    flat = torch.cat([*parts, scores.correct_products.flatten(), scores.loss_products.flatten()])
    total = accelerator.reduce(flat.to(accelerator.device), "sum").cpu()
    sums, products = total[1 : 1 + 2 * V].view(2, V), total[1 + 2 * V :].view(2, V, V)
    return PairedScores(int(total[0]), sums[0], sums[1], products[0], products[1])
