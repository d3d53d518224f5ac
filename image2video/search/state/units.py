"""The pieces of work that a search is made of; a checkpoint is written after each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    """One piece of work.

    Args:
        kind: `"search"` (an epoch of bilevel steps), `"sampled"` (an epoch on clips of sampled chains), `"order"`
            (start one order of the edges from the searched network), `"edge"` (decide an edge), `"tune"` (an epoch of
            bilevel steps with what is decided), `"settle"` (decide all edges by the means over the orders), `"node"`
            (decide a node's incoming edge), `"read"` (decide all at once), `"rank"` (rank chains), `"score"`.
        index: the epoch, counted from 0 within its kind (and order), or the order, the edge, the node.
    """

    kind: str
    index: int = 0
