"""The form of tables that list what there is."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table


def listing_table(*names: str, right: Sequence[str] = ()) -> Table:
    """An empty table; columns in `right` hold numbers, and those that are not among the names come last."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in dict.fromkeys((*names, *right)):
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return table
