"""Held-out scores of several variants on the same images, with the standard errors of their differences."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from torch import Tensor


class Scores(ABC):
    """The task's metric and the loss of V variants on the same n images; two of them add up to the scores on both sets.

    The metric is named `accuracy` whatever the task; more is better. Every error is one standard error over the images.

    Attributes:
        n: number of images.
    """

    n: int

    @property
    @abstractmethod
    def variants(self) -> int:
        """How many variants were scored."""

    @abstractmethod
    def __add__(self, other: Self) -> Self:
        """The scores on the images of both."""

    @abstractmethod
    def pick(self, variants: Sequence[int]) -> Self:
        """The scores of some variants.

        Args:
            variants: their numbers, in the order that is wanted.

        Returns:
            Scores of as many variants.
        """

    @abstractmethod
    def accuracy(self, variant: int) -> float:
        """The task's metric, such as the share of images classified right.

        Args:
            variant: its number.

        Returns:
            0 … 1.
        """

    @abstractmethod
    def mean_loss(self, variant: int) -> float:
        """The mean loss, such as the cross-entropy in nats.

        Args:
            variant: its number.

        Returns:
            The mean.
        """

    @abstractmethod
    def accuracy_error(self, variant: int) -> float:
        """The standard error of `accuracy`.

        Args:
            variant: its number.

        Returns:
            One standard error.
        """

    @abstractmethod
    def loss_error(self, variant: int) -> float:
        """The standard error of `mean_loss`.

        Args:
            variant: its number.

        Returns:
            One standard error.
        """

    @abstractmethod
    def accuracy_gap(self, a: int, b: int) -> tuple[float, float]:
        """How much larger the metric of one variant is than that of another.

        Args:
            a: the number of one variant.
            b: the number of the other.

        Returns:
            accuracy(a) − accuracy(b), and its standard error over the images (paired).
        """

    @abstractmethod
    def loss_gap(self, a: int, b: int) -> tuple[float, float]:
        """How much larger the loss of one variant is than that of another.

        Args:
            a: the number of one variant.
            b: the number of the other.

        Returns:
            mean_loss(a) − mean_loss(b), and its standard error over the images (paired).
        """


@dataclass(frozen=True)
class PairedScores(Scores):
    """Scores that are means over images, as sums: of classification, and of any task with one number per image.

    Args:
        n: number of images.
        correct: `(V,)` float64, images classified right (or the summed quality).
        loss: `(V,)` float64, summed cross-entropy in nats (or another loss).
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
        """The scores of values per image.

        Args:
            correct: `(V, n)`: right or wrong, or another quality.
            loss: `(V, n)`.

        Returns:
            The scores.
        """
        right, losses = correct.cpu().double(), loss.cpu().double()  # MPS has no float64
        return cls(right.shape[1], right.sum(1), losses.sum(1), right @ right.T, losses @ losses.T)

    @property
    def variants(self) -> int:
        """How many variants were scored."""
        return len(self.correct)

    def __add__(self, other: PairedScores) -> PairedScores:
        return PairedScores(
            self.n + other.n,
            self.correct + other.correct,
            self.loss + other.loss,
            self.correct_products + other.correct_products,
            self.loss_products + other.loss_products,
        )

    def pick(self, variants: Sequence[int]) -> PairedScores:
        """The scores of some variants."""
        v = list(variants)
        products = [m[v][:, v] for m in (self.correct_products, self.loss_products)]
        return PairedScores(self.n, self.correct[v], self.loss[v], products[0], products[1])

    def accuracy(self, variant: int) -> float:
        """The share of images classified right."""
        return float(self.correct[variant]) / self.n

    def mean_loss(self, variant: int) -> float:
        """The mean cross-entropy in nats."""
        return float(self.loss[variant]) / self.n

    def accuracy_error(self, variant: int) -> float:
        """The standard error of `accuracy`."""
        return self._error(self.correct, self.correct_products, [(variant, 1.0)])

    def loss_error(self, variant: int) -> float:
        """The standard error of `mean_loss`."""
        return self._error(self.loss, self.loss_products, [(variant, 1.0)])

    def accuracy_gap(self, a: int, b: int) -> tuple[float, float]:
        """How much larger the metric of one variant is than that of another."""
        error = self._error(self.correct, self.correct_products, [(a, 1.0), (b, -1.0)])
        return float(self.correct[a] - self.correct[b]) / self.n, error

    def loss_gap(self, a: int, b: int) -> tuple[float, float]:
        """How much larger the loss of one variant is than that of another."""
        error = self._error(self.loss, self.loss_products, [(a, 1.0), (b, -1.0)])
        return float(self.loss[a] - self.loss[b]) / self.n, error

    def _error(self, sums: Tensor, products: Tensor, terms: list[tuple[int, float]]) -> float:
        """The standard error of a mean over the images: of the sum of some variants' values, each with its sign."""
        mean = sum(sign * float(sums[v]) for v, sign in terms) / self.n
        # The square of a sum, as the sum of all products of two of its terms.
        square = sum(s * t * float(products[v, w]) for v, s in terms for w, t in terms) / self.n
        return (max(square - mean * mean, 0.0) / self.n) ** 0.5
