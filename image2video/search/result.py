"""What a search leaves behind, in memory and in its folder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from image2video.files import OutputDirectory, atomic_write_json
from image2video.genotype import Genotype
from image2video.search.config import SearchConfig
from image2video.search.ranking import Ranking
from image2video.search.space import SearchSpace
from image2video.search.state import SearchState
from image2video.version import __version__

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class SearchResult:
    """The outcome of `search`.

    Args:
        genotype: what was found, with provenance.
        config: the settings.
        space: the search space.
        state: decisions, τ's history, scores; empty for `fixed_weights`.
        ranking: the ranked chains of `fixed_weights`, else None.
        out: the result folder, where one was given.

    """

    genotype: Genotype
    config: SearchConfig
    space: SearchSpace
    state: SearchState
    ranking: Ranking | None = None
    out: Path | None = None

    @property
    def seconds(self) -> float:
        """The time that the search took, over all resumed parts."""
        return self.ranking.seconds if self.ranking is not None else self.state.seconds

    @property
    def frames(self) -> int:
        """The frames that went through the network (for `fixed_weights` forward only, else forward and backward)."""
        return self.ranking.frames if self.ranking is not None else self.state.frames

    def tau_record(self) -> dict[str, Any]:
        """The content of `tau.json`: τ over the steps, softmax weights and entropy over the epochs."""
        return {
            "schema_version": SCHEMA_VERSION,
            "candidates": list(self.space.labels),
            "edges": [list(edge) for edge in self.space.edges],
            "epochs": self.state.epochs,
            "steps": self.state.steps,
        }

    def scores_record(self) -> dict[str, Any]:
        """The content of `scores.json`: what every decision was based on, and what was chosen."""
        decisions = self.state.decisions
        return {
            "schema_version": SCHEMA_VERSION,
            "selection": self.config.selection,
            "space": self.space.to_dict(),
            "genotype": str(self.genotype),
            "edges": self.state.edges,
            "nodes": self.state.nodes,
            "chosen": {str(edge): op for edge, op in sorted(decisions.ops.items())},
            "kept": {str(node): edge for node, edge in sorted(decisions.sources.items())},
            "path": list(decisions.path(self.space)) if decisions.ops else [],
            "score": self.state.score,
            "ranking": None if self.ranking is None else self.ranking.to_dict(),
        }

    def summary(self) -> dict[str, Any] | None:
        """The search as the report draws it; None where no cell was searched (`fixed_weights`).

        `weights[epoch][edge][candidate]` are softmax weights, `drops[edge][candidate]` the points of held-out accuracy
        that masking cost (None where nothing was masked), `path` the edges of the genotype, input to output.
        """
        if self.ranking is not None:
            return None
        count, decisions = len(self.space.candidates), self.state.decisions
        drops: list[list[float | None]] = [[None] * count for _ in self.space.edges]
        for entry in self.state.edges:
            drops[entry["edge"]] = [100 * (entry["accuracy"] - masked) for masked in entry["masked_accuracy"]]
        epochs = self.state.epochs or [{"epoch": 0, "weights": [[1 / count] * count for _ in self.space.edges]}]
        return {
            "space": self.space.name,
            "genotype": str(self.genotype),
            "inputs": self.space.inputs,
            "nodes": self.space.nodes,
            "edges": [list(edge) for edge in self.space.edges],
            "ops": list(self.space.labels),
            "epochs": [entry["epoch"] for entry in epochs],
            "weights": [entry["weights"] for entry in epochs],
            "drops": drops,
            "chosen": [decisions.ops[edge] for edge in range(len(self.space.edges))],
            "path": list(decisions.path(self.space)),
            "frames": self.frames,
            "seconds": self.seconds,
        }

    def write(self, folder: OutputDirectory) -> None:
        """Write `genotype.json`, `tau.json` and `scores.json`: no dates, no paths, no durations."""
        atomic_write_json(folder / "tau.json", self.tau_record())
        atomic_write_json(folder / "scores.json", self.scores_record())
        self.genotype.save(folder / "genotype.json")


def cell_result(
    state: SearchState, space: SearchSpace, config: SearchConfig, provenance: dict[str, Any], out: Path | None
) -> SearchResult:
    """The result of a search through the cell; the genotype's provenance says how it was found."""
    score = state.score or {}
    record = {
        **provenance,
        "selection": config.selection,
        "space": space.name,
        "T": config.T,
        "schedule": space.schedule,
        "fusion": config.fusion,
        "epochs": config.epochs,
        "seed": config.seed,
        "score": score.get("accuracy"),
        "score_error": score.get("accuracy_error"),
        "images": score.get("images"),
        "image2video": __version__,
    }
    if config.selection == "random":
        for key in ("fusion", "epochs", "score", "score_error", "images"):
            del record[key]
    genotype: Genotype = state.decisions.genotype(space).with_provenance(record)
    return SearchResult(genotype, config, space, state, None, out)


def identity_warning(result: SearchResult) -> str:
    """The text of the warning where a search has chosen nothing but identities."""
    entropy = result.state.epochs[-1]["entropy"]
    return (
        f"the search with selection={result.config.selection!r} chose the identity on the whole path: every frame is "
        f"the image itself; the mean entropy of τ at the end is {entropy:.3f} nats (equal weights have "
        f"{math.log(len(result.space.candidates)):.3f}). More held-out images, or criterion='loss', may decide more."
    )
