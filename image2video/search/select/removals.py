"""How a node loses its incoming edges one by one, and how decided the edge is that it keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from image2video.search.rank.ranking import DECIDED
from image2video.search.score.scores import Scores
from image2video.search.select.edge_records import gap_of, hurt_most, record


@dataclass(frozen=True)
class Removal:
    """One round: the scores without each edge that is left, and the edge that goes.

    Args:
        scores: of the cell with all of these edges, and without each of them.
        edges: those that are left, in the order of the scores.
        removed: the one whose removal hurts least.
    """

    scores: Scores
    edges: tuple[int, ...]
    removed: int

    def lead(self, kept: int, criterion: str) -> tuple[float, float]:
        """How much more the removal of the edge `kept` costs than that of the removed one, with its error."""
        order = [self.edges.index(kept), self.edges.index(self.removed)]
        return gap_of(self.scores, order, criterion)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the records."""
        scored = record(self.scores, hurt_most(self.scores, "accuracy"))
        names = ("images", "accuracy", "loss", "masked_accuracy", "masked_loss", "drop_error", "loss_drop_error")
        return {"edges": list(self.edges), "removed": self.removed, **{name: scored[name] for name in names}}


def removals_record(rounds: Sequence[Removal], incoming: Sequence[int], criterion: str) -> dict[str, Any]:
    """The record of a node: the scores of the first round, and the kept edge with its closest lead over a removed one.

    It is decided where that lead exceeds two standard errors in every round: an edge that went early may have been the
    better one.
    """
    (kept,) = set(incoming) - {removal.removed for removal in rounds}
    leads = {name: [removal.lead(kept, name) for removal in rounds] for name in ("accuracy", "loss")}
    closest = min(range(len(rounds)), key=lambda number: _in_errors(*leads[criterion][number]))
    gap, gap_error = leads["accuracy"][closest]
    loss_gap, loss_gap_error = leads["loss"][closest]
    first = record(rounds[0].scores, hurt_most(rounds[0].scores, criterion), criterion)
    return {
        **first,
        "chosen": list(incoming).index(kept),
        "gap": gap,
        "gap_error": gap_error,
        "loss_gap": loss_gap,
        "loss_gap_error": loss_gap_error,
        "rival": list(incoming).index(rounds[closest].removed),
        "decided": all(lead > DECIDED * error for lead, error in leads[criterion]),
    }


def _in_errors(lead: float, error: float) -> float:
    """A lead in its standard errors; one without an error is beyond doubt unless it is no lead."""
    if error > 0:
        return lead / error
    return float("inf") if lead > 0 else 0.0
