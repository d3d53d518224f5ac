"""How spaces, ops and presets are listed."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from rich.table import Table

from image2video.cli.listing_table import listing_table
from image2video.clip.ops.registry import Op, get_op, op_names
from image2video.search import SearchSpace


def spaces_table(spaces: Iterable[SearchSpace]) -> Table:
    """One row per space: its cell and its size, as a power and in full."""
    table = listing_table("space", "ops with magnitudes", right=("inputs", "nodes", "edges", "size"))
    for space in spaces:
        cell = (str(space.inputs), str(space.nodes), str(len(space.edges)))
        table.add_row(space.name, candidates_text(space), *cell, size_text(space))
    return table


def describe_space(space: SearchSpace) -> str:
    """One space in words, a line per candidate."""
    per_edge, edges = len(space.candidates), len(space.edges)
    inputs = "1 input" if space.inputs == 1 else f"{space.inputs} inputs (the same image)"
    return "\n".join(
        [
            f"{space.name}: {per_edge} candidates on each of {edges} edges, {size_text(space)} cells",
            f"cell: {inputs}, {space.nodes} nodes, each the {space.reduce} of its incoming edges; schedule "
            f"{space.schedule}",
            f"a genotype is a chain of 1 to {space.nodes} of these candidates:",
            *(f"  {label}" for label in space.labels),
        ]
    )


def candidates_text(space: SearchSpace) -> str:
    """The candidates, those of one op together: `translate_x ±0.03 0.06, identity`."""
    groups: dict[str, list[tuple[float, ...]]] = {}
    for candidate in space.candidates:
        ops = " > ".join(transform.op for transform in candidate.chain) or "identity"
        groups.setdefault(ops, []).append(tuple(t.magnitude for t in candidate.chain if not get_op(t.op).mirrors))
    return ", ".join(" ".join([ops, *_magnitudes(values)]) for ops, values in groups.items())


def _magnitudes(values: list[tuple[float, ...]]) -> list[str]:
    """Magnitudes as texts, both signs of one as `±`; those of a pair stand together."""
    texts = []
    for value in values:
        opposite = tuple(-v for v in value)
        if opposite in values and values.index(opposite) < values.index(value):
            continue  # it stands behind the ± already
        text = "/".join(f"{v:g}".replace("-", "−") for v in value)
        if text:
            texts.append(f"±{text}" if opposite in values else text)
    return texts


def size_text(space: SearchSpace) -> str:
    """The number of cells as a power and in full: `5^10 = 9 765 625`."""
    return f"{len(space.candidates)}^{len(space.edges)} = {f'{space.size:,}'.replace(',', ' ')}"


def ops_table() -> Table:
    """One row per registered op: unit, default, range, kind, and how gradients pass through it."""
    table = listing_table("op", "default", "range per step", "kind", "gradient", right=("default",))
    table.caption, table.caption_justify = textwrap.fill(_OPS_NOTE, 78), "left"
    for op in map(get_op, op_names()):
        table.add_row(*_op_row(op))
    return table


_OPS_NOTE = (
    "range: the magnitudes that a genotype may hold, with their unit. geometric: a matrix, resampled once with its "
    "neighbours, with an inverse; photometric: a function of the pixels. exact: the gradient of the op itself; "
    "straight_through: that of the identity, where the op's own is zero almost everywhere."
)


def _op_row(op: Op) -> tuple[str, str, str, str, str]:
    """One op as a row of the table."""
    if op.low == op.high:
        return op.name, "–", "takes none", "geometric", "exact"
    kind = "geometric" if op.geometric else "photometric"
    return op.name, f"{op.default:g}", op.range_text.replace("-", "−"), kind, op.gradient
