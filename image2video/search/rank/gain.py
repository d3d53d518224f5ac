"""The record of what a chain gains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

INTERVAL = 1.96
"""Standard errors on either side that hold 95 % of a normal distribution."""


@dataclass(frozen=True)
class GainEstimate:
    """What a chain gains over the image itself, on held-out images that had no part in its choice (ours).

    Every `*_error` is one standard error, paired over the images. That of the metric counts one further image whose
    answer changes, so that a few images without any change decide nothing.

    Attributes:
        images: how many images judged.
        accuracy: the task's metric under the chain, 0 … 1.
        bare_accuracy: that of the image itself.
        gain: the difference; above 0 is better.
        gain_error: its error.
        loss: the mean loss under the chain, such as nats.
        bare_loss: that of the image itself.
        loss_gain: the difference; below 0 is better.
        loss_gain_error: its error.
        scaled_loss: the cross-entropy under the chain after temperature scaling (Guo et al., ICML 2017), the
            temperature fitted on one half of these images and used on the other (in an assessment: on the images that
            chose); None where the task has no logits.
        bare_scaled_loss: that of the image itself, which is the fair control of a gain in cross-entropy.
        scaled_loss_gain: the difference; below 0 is better.
        scaled_loss_gain_error: its error.
    """

    images: int
    accuracy: float
    bare_accuracy: float
    gain: float
    gain_error: float
    loss: float
    bare_loss: float
    loss_gain: float
    loss_gain_error: float
    scaled_loss: float | None = None
    bare_scaled_loss: float | None = None
    scaled_loss_gain: float | None = None
    scaled_loss_gain_error: float | None = None

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the gain in the task's metric."""
        return self.gain - INTERVAL * self.gain_error, self.gain + INTERVAL * self.gain_error

    @property
    def decided(self) -> bool:
        """Whether the whole interval of the gain lies above 0."""
        return self.interval[0] > 0

    def text(self) -> str:
        """The gain with its 95 % interval, and the change of the loss beside that of the bare network.

        Returns:
            A part of a sentence.
        """
        low, high = (100 * end for end in self.interval)
        text = (
            f"{100 * self.gain:+.2f} points (95 % interval {low:+.2f} … {high:+.2f}) and {self.loss_gain:+.4f} ± "
            f"{self.loss_gain_error:.4f} of loss on {self.images} held-out images that chose nothing"
        )
        if self.scaled_loss_gain is not None:
            text += f"; {self.scaled_loss_gain:+.4f} where both are temperature-scaled"
        return text

    def to_dict(self) -> dict[str, Any]:
        """The estimate for records.

        Returns:
            Plain JSON values.
        """
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> GainEstimate:
        """The estimate that `to_dict` gave.

        Args:
            record: what it gave.

        Returns:
            An equal estimate.
        """
        return cls(**record)
