"""TensorBoard curves of a search: losses, τ and its entropy, and what masking costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from image2video.runs.curve_file import CurveFile
from image2video.search.space.deep_space import AnySpace
from image2video.search.state.state import SearchState
from image2video.search.state.units import Unit


class Curves:
    """Writes the newest record after every unit of work; without a folder it does nothing.

    Args:
        folder: where the event files go.
        space: for the names of edges and candidates.
        done: units that an earlier part of the run has written already.
    """

    def __init__(self, folder: Path | None, space: AnySpace, done: int) -> None:
        self._space = space
        self._writer = None if folder is None else CurveFile(folder, purge_step=done or None)

    def add(self, unit: Unit, number: int, state: SearchState) -> None:
        """Write what a unit, the `number`-th of the search, has added to the records."""
        if self._writer is not None:
            self._add(self._writer, unit, number, state)
            self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()

    def _add(self, writer: CurveFile, unit: Unit, number: int, state: SearchState) -> None:
        if unit.kind in ("search", "sampled"):
            records = state.epochs if unit.kind == "search" else state.sampled
            if records and records[-1]["epoch"] == unit.index + 1:  # else the budget left no step
                self._epoch(writer, number, records[-1])
        elif unit.kind == "edge" and state.edges[-1]["masked_accuracy"] is not None:
            self._edge(writer, number, state.edges[-1])
        elif unit.kind == "tune":
            tuned = (state.nodes or state.edges)[-1]
            for loss in tuned.get("tuning_loss", ())[-1:]:  # none where the budget left no step
                writer.add_scalar("tune/loss", loss, number)
        elif unit.kind == "rank" and state.ranking is not None:
            for place, entry in enumerate(state.ranking["entries"]):
                writer.add_scalar("rank/accuracy", entry["accuracy"], place)
        elif unit.kind == "score" and state.score is not None:
            writer.add_scalar("chosen/accuracy", state.score["accuracy"], number)

    def _epoch(self, writer: CurveFile, number: int, record: dict[str, Any]) -> None:
        for loss in ("train_loss", "validation_loss"):
            if record.get(loss) is not None:
                writer.add_scalar(f"search/{loss}", record[loss], number)
        if record.get("weights") is None:
            return
        writer.add_scalar("tau/entropy", record["entropy"], number)
        for edge, weights in enumerate(record["weights"]):
            for label, weight in zip(self._space.labels, weights, strict=True):
                writer.add_scalar(f"tau/{_tag(self._space.edge_name(edge))}/{_tag(label)}", weight, number)

    def _edge(self, writer: CurveFile, number: int, record: dict[str, Any]) -> None:
        edge = _tag(self._space.edge_name(record["edge"]))
        for label, masked in zip(self._space.labels, record["masked_accuracy"], strict=True):
            cost = 100 * (record["accuracy"] - masked)
            writer.add_scalar(f"masking/{edge}/{_tag(label)}", cost, number)


def _tag(label: str) -> str:
    """A label as TensorBoard allows it in a tag."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in label).strip("_")
