"""How decided a search's choices were: what held-out images of the same kind could have turned."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from image2video.search.state.state import SearchState


@dataclass(frozen=True)
class Decidedness:
    """How many choices are decided: the gap between the first two parts exceeds two standard errors.

    Args:
        edges: edges that were chosen.
        edges_decided: those whose gap is decided.
        edges_from_tau: those that were read from τ, since the budget was spent; they are not decided.
        nodes: nodes whose incoming edge was chosen.
        nodes_decided: those whose gap is decided.
        nodes_from_tau: those that were read from τ.
    """

    edges: int
    edges_decided: int
    edges_from_tau: int
    nodes: int
    nodes_decided: int
    nodes_from_tau: int

    @classmethod
    def of(cls, state: SearchState) -> Decidedness | None:
        """The counts of a search's records; None where nothing was chosen by masking."""
        if not state.edges:
            return None
        counts = []
        for entries in (state.edges, state.nodes):
            counts += [len(entries), sum(bool(entry["decided"]) for entry in entries)]
            counts += [sum(entry["decided_by"] == "tau" for entry in entries)]
        return cls(*counts)

    def sentence(self) -> str:
        """The counts in words.

        >>> Decidedness(10, 2, 0, 3, 1, 0).sentence()
        '2 of 10 edges and 1 of 3 nodes are decided at two standard errors.'
        """
        text = f"{self.edges_decided} of {_count(self.edges, 'edge')}"
        text += f" and {self.nodes_decided} of {_count(self.nodes, 'node')}" if self.nodes else ""
        text += " are decided at two standard errors."
        if self.edges_from_tau or self.nodes_from_tau:
            left = f"{_count(self.edges_from_tau, 'edge')} and {_count(self.nodes_from_tau, 'node')}"
            text += f" The budget was spent before {left} were judged: they were read from τ."
        return text

    def to_dict(self) -> dict[str, int]:
        """Plain JSON values."""
        return asdict(self)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
