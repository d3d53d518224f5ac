"""What a search over augmentation policies leaves behind."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from image2video.training.evaluate import Metrics

NO_POLICY = "none"


@dataclass(frozen=True)
class PolicyScore:
    """One policy, trained and scored: held-out top-1 (0 … 1) with its standard error, mean loss, seconds of work.

    The error is that of `images` held-out images, √(p (1 − p) / n); how much a second training would differ is not in
    it.
    """

    policy: str
    accuracy: float
    error: float
    loss: float
    images: int
    seconds: float

    @classmethod
    def of(cls, policy: str, metrics: Metrics, seconds: float) -> PolicyScore:
        """The score of a policy that gave these metrics."""
        p, n = metrics.top1, metrics.n
        return cls(policy, p, math.sqrt(p * (1 - p) / n), metrics.loss, n, seconds)


@dataclass(frozen=True)
class PolicySearchResult:
    """The policies of one family that the budget allowed for, best first, and how far it went.

    reference: the same training without a policy, None where it was not asked for; not_reached: policies of the grid
    that the budget left out; seconds: spent, over all resumed parts, unfinished policies included.
    """

    family: str
    scores: tuple[PolicyScore, ...]
    reference: PolicyScore | None
    not_reached: tuple[str, ...]
    minutes: float
    seconds: float
    out: Path | None = None

    @property
    def best(self) -> str:
        """The policy with the highest held-out top-1; the lower loss breaks ties, then the order of the text."""
        return self.scores[0].policy

    def gain(self, score: PolicyScore) -> tuple[float, float] | None:
        """Top-1 over that of the reference, and its error with both taken as independent; None without a reference."""
        if self.reference is None:
            return None
        return score.accuracy - self.reference.accuracy, math.hypot(score.error, self.reference.error)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the folder, ready for JSON."""
        return {
            "family": self.family,
            "best": self.best if self.scores else None,
            "minutes": self.minutes,
            "seconds": self.seconds,
            "reference": None if self.reference is None else asdict(self.reference),
            "scores": [asdict(score) for score in self.scores],
            "not_reached": list(self.not_reached),
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any], out: Path | None = None) -> PolicySearchResult:
        """What `to_dict` gave."""
        reference = record["reference"]
        return cls(
            record["family"],
            tuple(PolicyScore(**score) for score in record["scores"]),
            None if reference is None else PolicyScore(**reference),
            tuple(record["not_reached"]),
            record["minutes"],
            record["seconds"],
            out,
        )


def ranked(scores: list[PolicyScore]) -> tuple[PolicyScore, ...]:
    """Best first; see `PolicySearchResult.best`."""
    return tuple(sorted(scores, key=lambda score: (-score.accuracy, score.loss, score.policy)))
