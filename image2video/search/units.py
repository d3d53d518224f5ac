"""The pieces of work that a search is made of; a checkpoint is written after each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    """One piece of work.

    Args:
        kind: `"search"` (an epoch of bilevel steps), `"edge"` (decide an edge), `"tune"` (an epoch of weight steps with
            what is decided), `"node"` (decide a node's incoming edge), `"read"` (decide all at once), `"score"`.
        index: the epoch, counted from 0 within its kind, or the edge, or the node.

    """

    kind: str
    index: int = 0
