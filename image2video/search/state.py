"""What a search has done so far, and how it is kept: one checkpoint holds all that a later process needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from image2video.errors import InputError
from image2video.search.topology import Decisions

CHECKPOINT = "checkpoint/last.pt"
CHECKPOINT_FORMAT = 1


@dataclass
class SearchState:
    """The records of a search; plain values throughout.

    Args:
        done: how many of the selection's units of work are complete.
        decisions: what has been chosen.
        steps: τ during the search: `{"step", "tau"}`, evenly spread.
        epochs: after each epoch (0 is the start): `{"epoch", "weights", "entropy"}` with softmax weights per edge, the
            mean entropy of the rows in nats, and the losses.
        edges: per decided edge the scores of every masked candidate.
        nodes: per decided node the scores of every masked incoming edge.
        score: held-out accuracy and loss of the discretised cell, where it was measured.
        frames: frames that went forward and backward.
        evaluated_frames: frames that went forward for scores.
        seconds: time taken, over all resumed parts.

    """

    done: int = 0
    decisions: Decisions = field(default_factory=Decisions)
    steps: list[dict[str, Any]] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    edges: list[dict[str, Any]] = field(default_factory=list)
    nodes: list[dict[str, Any]] = field(default_factory=list)
    score: dict[str, Any] | None = None
    frames: int = 0
    evaluated_frames: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> SearchState:
        """The state that `to_dict` gave."""
        return cls(**{**record, "decisions": Decisions.from_dict(record["decisions"])})


def check_same_search(saved: dict[str, Any], now: dict[str, Any], where: object) -> None:
    """Raise `InputError` where a checkpoint was made with other settings; the message lists them."""
    changed = sorted(key for key in {**saved, **now} if saved.get(key) != now.get(key))
    if changed:
        listed = "; ".join(f"{key}: {saved.get(key)!r} then, {now.get(key)!r} now" for key in changed)
        raise InputError(f"{where} is of a search with other settings ({listed}); resume with the same, or overwrite")
