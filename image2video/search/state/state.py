"""What a search has done so far, and how it is kept: one checkpoint holds all that a later process needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from image2video.errors import InputError
from image2video.runs.settings import built, differences
from image2video.search.cell.topology import Decisions

CHECKPOINT = "checkpoint/last.pt"
CHECKPOINT_FORMAT = 4
READ_FORMATS = (3, 4)
"""The formats that can be resumed; 3 is that of searches at the image alone."""


@dataclass
class SearchState:
    """The records of a search; plain values throughout.

    Args:
        done: how many of the selection's units of work are complete.
        decisions: what has been chosen.
        steps: τ during the search: `{"step", "tau"}`, evenly spread.
        epochs: after each epoch (0 is the start): `{"epoch", "weights", "entropy"}` with softmax weights per edge, the
            mean entropy of the rows in nats, the learned magnitudes where there are any, and the losses; an epoch that
            the budget has cut short has its `"steps"`.
        sampled: after each epoch on clips of sampled chains: `{"epoch", "train_loss"}`, and `"steps"` likewise.
        edges: per decided edge the scores of every masked candidate; the means where there are several orders.
        nodes: per decided node the scores of every masked incoming edge, in the rounds of its removals.
        orders: with several orders of the edges, the records of every edge in each order that is complete.
        ranking: the ranked chains of `one_shot`, as `Ranking.to_dict` gives them.
        magnitudes: the learned magnitudes, as the cell gives them; None where none were learned.
        chain: the text of the genotype that was found, learned magnitudes included; None before the end.
        score: held-out accuracy and loss of the discretised cell, where it was measured.
        front: of a search over places, what the discretised cells give that begin at each place or a later one:
            `{"place", "cost", "accuracy", "gain", …}`; the last entry, whose place is None, has frames that are copies.
        frames: frames that went forward and backward.
        evaluated_frames: frames that went forward for scores.
        seconds: time taken, over all resumed parts.
    """

    done: int = 0
    decisions: Decisions = field(default_factory=Decisions)
    steps: list[dict[str, Any]] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    sampled: list[dict[str, Any]] = field(default_factory=list)
    edges: list[dict[str, Any]] = field(default_factory=list)
    nodes: list[dict[str, Any]] = field(default_factory=list)
    orders: list[list[dict[str, Any]]] = field(default_factory=list)
    ranking: dict[str, Any] | None = None
    magnitudes: list[Any] | None = None
    chain: str | None = None
    score: dict[str, Any] | None = None
    front: list[dict[str, Any]] = field(default_factory=list)
    frames: int = 0
    evaluated_frames: int = 0
    seconds: float = 0.0

    @property
    def measured(self) -> int:
        """How many decisions stand in the records, every order's own included: what a progress bar counts."""
        means = sum(entry.get("decided_by") == "orders" for entry in self.edges)
        edges = sum(len(records) for records in self.orders) + len(self.edges) - means
        return edges + sum(len(entry["rounds"]) for entry in self.nodes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> SearchState:
        """The state that `to_dict` gave."""
        return built(cls, {**record, "decisions": Decisions.from_dict(record["decisions"])})


def check_same_search(saved: dict[str, Any], now: dict[str, Any], where: object) -> None:
    """Raise `InputError` where a checkpoint was made with other settings; the message lists them."""
    listed = differences(saved, now)
    if listed:
        raise InputError(f"{where} is of a search with other settings ({listed}); resume with the same, or overwrite")
