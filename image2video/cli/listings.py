"""How spaces, ops and presets are listed."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from image2video.clip.genotype import Genotype
from image2video.clip.ops.registry import Op, get_op, op_names
from image2video.search import SearchSpace


def spaces_table(spaces: Iterable[SearchSpace]) -> Table:
    """One row per space: its cell and its size, as a power and in full."""
    table = _table("space", "ops with magnitudes", right=("inputs", "nodes", "edges", "size"))
    for space in spaces:
        cell = (str(space.inputs), str(space.nodes), str(len(space.edges)))
        table.add_row(space.name, candidates_text(space), *cell, size_text(space))
    return table


def _table(*names: str, right: Sequence[str] = ()) -> Table:
    """An empty table; columns in `right` hold numbers, and those that are not among the names come last."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in dict.fromkeys((*names, *right)):
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
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
    table = _table("op", "default", "range per step", "kind", "gradient", right=("default",))
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


def presets_table(presets: Mapping[str, Genotype]) -> Table:
    """One row per preset: its chain, what it was found on, with what score, and at which scale."""
    table = _table("preset", "chain", "found on", "held-out score", "scale", right=("held-out score",))
    for name, genotype in presets.items():
        found = genotype.provenance or {}
        place = f"{found.get('dataset', '–')}, {found.get('backbone', '–')}"
        if found.get("fusion"):
            place += f", {found['fusion']}"
        table.add_row(name, str(genotype), place, score_text(found), scale_text(found))
    return table


def score_text(found: Mapping[str, Any]) -> str:
    """The score of a provenance record with its standard error, in percent: `44.8 ± 1.6 %`."""
    score, error = found.get("score"), found.get("score_error")
    if score is None:
        return "–"
    metric = "" if found.get("metric", "accuracy") == "accuracy" else f" {found['metric']}"
    return f"{100 * score:.1f}{'' if error is None else f' ± {100 * error:.1f}'} %{metric}"


def scale_text(found: Mapping[str, Any]) -> str:
    """How much a search has seen, and how it chose."""
    named = (
        ("train_images", "{} images"),
        ("epochs", "{} epochs"),
        ("images", "scored on {} held-out images"),
        ("T", "T = {}"),
        ("selection", "{}"),
        ("space", "space {}"),
    )
    return ", ".join(text.format(found[key]) for key, text in named if found.get(key) is not None) or "–"
