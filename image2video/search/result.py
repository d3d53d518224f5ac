"""What a search leaves behind, in memory and in its folder."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from image2video.clip.any_clip import AnyClip, as_any_clip
from image2video.clip.deep_clip import DeepClip
from image2video.clip.genotype import Genotype
from image2video.runs.folders import OutputDirectory, atomic_write_json
from image2video.search.cell.topology import Decisions, decisions_at, found_clip, found_path
from image2video.search.rank.frame_choice import FrameChoice
from image2video.search.rank.ranking import Ranking
from image2video.search.select.decidedness import Decidedness
from image2video.search.select.selection import Run, get_selection
from image2video.search.space.deep_space import AnySpace, DeepSpace
from image2video.search.space.space import SearchSpace
from image2video.search.state.state import SearchState
from image2video.settings.search import SearchConfig
from image2video.version import __version__

SCHEMA_VERSION = 1
_SCORES = {"score": "accuracy", "score_error": "accuracy_error", "images": "images"}


@dataclass(frozen=True)
class SearchResult:
    """The outcome of `search`.

    Args:
        genotype: what was found, with provenance; of `greedy_frames` a frame set, of a search over places of a network
            a `DeepClip`.
        config: the settings.
        space: the search space.
        state: decisions, τ's history, scores; empty for `fixed_weights`.
        ranking: the ranked chains of `one_shot` and `fixed_weights`, else None.
        out: the result folder, where one was given.
        frame_choice: the curve of `greedy_frames`, else None.
    """

    genotype: AnyClip
    config: SearchConfig
    space: AnySpace
    state: SearchState
    ranking: Ranking | None = None
    out: Path | None = None
    frame_choice: FrameChoice | None = None

    @property
    def seconds(self) -> float:
        """The time that the search took, over all resumed parts."""
        return self.state.seconds

    @property
    def frames(self) -> int:
        """The frames that went through the network: forward and backward, or forward only where nothing is trained."""
        return self.state.frames

    @property
    def front(self) -> list[dict[str, Any]]:
        """Gain against cost, of a search over places of a network.

        Returns:
            What the clip gives, and clips that begin at its later places alone, each with its cost as a multiple of the
            image's multiply-accumulates; the last one is copies of the image. Empty for other searches.
        """
        return self.state.front

    def front_sentence(self) -> str:
        """The front in words.

        Returns:
            One sentence; empty where there is none.
        """
        parts = [
            f"{entry['place']} ({entry['cost']:.2f} times the image) {100 * entry['gain']:+.2f} ± "
            f"{100 * entry['gain_error']:.2f}"
            for entry in self.front
            if entry["place"] is not None
        ]
        if not parts:
            return ""
        return f"Points above copies of the image, by where the clip begins: {', '.join(parts)} (one standard error)."

    def decidedness(self) -> Decidedness | None:
        """How many edges and nodes are decided.

        Returns:
            The counts; None where no edge was judged by masking.
        """
        return Decidedness.of(self.state)

    def decided_sentence(self) -> str:
        """How much the choice is worth, for every selection.

        Returns:
            A sentence or two.
        """
        counts = self.decidedness()
        if counts is not None:
            return counts.sentence()
        if self.ranking is not None:
            return f"{self.ranking.sentence()} {self.ranking.tied_sentence()}"
        if self.frame_choice is not None:
            return self.frame_choice.sentence()
        return f"Nothing was compared: selection={self.config.selection!r} judges no op on held-out images."

    def tau_record(self) -> dict[str, Any]:
        """The content of `tau.json`.

        Returns:
            τ over the steps, softmax weights and entropy over the epochs.
        """
        return {
            "schema_version": SCHEMA_VERSION,
            "candidates": list(self.space.labels),
            "edges": [list(edge) for edge in self.space.edges],
            "epochs": self.state.epochs,
            "steps": self.state.steps,
        }

    def scores_record(self) -> dict[str, Any]:
        """The content of `scores.json`.

        Returns:
            What every decision was based on, and what was chosen.
        """
        decisions, decidedness = self.state.decisions, self.decidedness()
        front = {"front": self.state.front} if isinstance(self.space, DeepSpace) else {}
        return {
            "schema_version": SCHEMA_VERSION,
            "selection": self.config.selection,
            "space": self.space.to_dict(),
            "genotype": str(self.genotype),
            "edges": self.state.edges,
            "nodes": self.state.nodes,
            "orders": self.state.orders,
            "decidedness": None if decidedness is None else decidedness.to_dict(),
            "magnitudes": self.state.magnitudes,
            "chosen": {str(edge): op for edge, op in sorted(decisions.ops.items())},
            "kept": {str(node): edge for node, edge in sorted(decisions.sources.items())},
            "path": list(found_path(decisions, self.space)) if decisions.ops else [],
            "score": self.state.score,
            **front,
            "ranking": None if self.ranking is None else self.ranking.to_dict(),
            **({} if self.frame_choice is None else {"frame_choice": self.frame_choice.to_dict()}),
        }

    def summary(self) -> dict[str, Any] | None:
        """The search as the report draws it.

        `weights[epoch][edge][candidate]` are softmax weights, `drops[edge][candidate]` the points of the held-out
        metric that masking cost (None where nothing was masked), `path` the edges of the genotype, input to output.
        `ops` are the candidates with the space's magnitudes; learned ones stand in `genotype`.

        Returns:
            JSON values; None where no cell was decided, as in rankings of chains, and where there is one at each of
            several places: see `place_summaries`.
        """
        if isinstance(self.space, DeepSpace) or self._undecided:
            return None
        return self._summary(self.space, slice(None), self.state.decisions, str(self.genotype))

    def place_summaries(self) -> list[tuple[str, dict[str, Any]]]:
        """The cells of a search over places of a network, as `summary` gives the one of others.

        Returns:
            The places in the order of the network, each with its cell and the chain there; empty for other searches.
        """
        space, found = self.space, self.genotype
        if not isinstance(space, DeepSpace) or not isinstance(found, DeepClip) or self._undecided:
            return []
        count = len(space.cell.edges)
        summaries = []
        for number, (place, chain) in enumerate(zip(space.places, found.clips, strict=True)):
            rows = slice(number * count, (number + 1) * count)
            there = decisions_at(self.state.decisions, space, number)
            summaries.append((place, self._summary(space.cell, rows, there, str(chain))))
        return summaries

    @property
    def _undecided(self) -> bool:
        """Whether no cell was decided."""
        return self.ranking is not None or not self.state.decisions.ops

    def _summary(self, cell: SearchSpace, rows: slice, decisions: Decisions, genotype: str) -> dict[str, Any]:
        """The summary of one cell, whose edges are some rows of all."""
        count = len(cell.candidates)
        drops: list[list[float | None]] = [[None] * count for _ in self.space.edges]
        for entry in self.state.edges:
            if entry["masked_accuracy"] is not None:
                drops[entry["edge"]] = [100 * (entry["accuracy"] - masked) for masked in entry["masked_accuracy"]]
        epochs = self.state.epochs or [{"epoch": 0, "weights": [[1 / count] * count for _ in self.space.edges]}]
        return {
            "space": cell.name,
            "genotype": genotype,
            "inputs": cell.inputs,
            "nodes": cell.nodes,
            "edges": [list(edge) for edge in cell.edges],
            "ops": list(cell.labels),
            "epochs": [entry["epoch"] for entry in epochs],
            "weights": [entry["weights"][rows] for entry in epochs],
            "drops": drops[rows],
            "chosen": [decisions.ops[edge] for edge in range(len(cell.edges))],
            "path": list(decisions.path(cell)),
            "frames": self.frames,
            "seconds": self.seconds,
        }

    def write(self, folder: OutputDirectory) -> None:
        """Write `genotype.json`, `tau.json` and `scores.json`: no dates, no paths, no durations.

        Args:
            folder: the result folder.
        """
        atomic_write_json(folder / "tau.json", self.tau_record())
        atomic_write_json(folder / "scores.json", self.scores_record())
        self.genotype.save(folder / "genotype.json")


def result_of(run: Run, config: SearchConfig, provenance: dict[str, Any], out: Path | None) -> SearchResult:
    """The result of a search that is over; the genotype's provenance says how it was found."""
    state, space, ranking = run.state, run.space, run.ranking
    if run.frame_choice is not None:
        return SearchResult(run.frame_choice.best, config, space, state, None, out, run.frame_choice)
    if ranking is not None and ranking.best.provenance is not None:  # it says itself how it was found
        return SearchResult(ranking.best, config, space, state, ranking, out)
    record = {
        **provenance,
        "selection": config.selection,
        "space": space.name,
        "T": config.T,
        "schedule": space.schedule,
        "padding": config.padding,
        "interpolation": config.interpolation,
        "seed": config.seed,
    }
    if get_selection(config.selection).trains:
        record |= {"fusion": config.fusion, "epochs": config.epochs, **_score_record(state, ranking, config)}
    record["image2video"] = __version__
    chain = found_clip(state.decisions, space) if state.chain is None else as_any_clip(state.chain)
    genotype = chain.with_provenance(record)
    if ranking is not None:
        assert isinstance(genotype, Genotype | DeepClip), "rankings are of chains"
        ranking = replace(ranking, best=genotype)
    return SearchResult(genotype, config, space, state, ranking, out)


def _score_record(state: SearchState, ranking: Ranking | None, config: SearchConfig) -> dict[str, Any]:
    if ranking is not None:
        best = ranking.best_entry
        return {
            "candidates": len(ranking.entries),
            "score": best.accuracy,
            "score_error": best.accuracy_error,
            "images": best.images,
            "gain": best.gain,
            "gain_error": best.gain_error,
            "decided": ranking.decided,
        }
    score, counts = state.score or {}, Decidedness.of(state)
    record = {key: score.get(name) for key, name in _SCORES.items()}
    if counts is None:
        return record
    how = {"score_statistics": config.score_statistics, "renormalise": config.renormalise}
    return {**record, **how, "edges_decided": counts.edges_decided, "edges": counts.edges}


def is_still(clip: Genotype | DeepClip) -> bool:
    """Whether all frames of a clip are the image itself."""
    chains = clip.clips if isinstance(clip, DeepClip) else (clip,)
    return all(isinstance(chain, Genotype) and not chain.chain for chain in chains)


def identity_warning(result: SearchResult) -> str:
    """The text of the warning where a search has chosen nothing but identities."""
    chose = f"the search with selection={result.config.selection!r} chose the identity"
    if result.ranking is not None:
        return (
            f"{chose}: every frame is the image itself; of {len(result.ranking.entries)} chains it came first on "
            f"{result.ranking.images} held-out images, and {result.ranking.tied} others lie within two standard errors "
            "of it. More epochs or held-out images, or criterion='loss', may decide more."
        )
    where = "on the paths at all places" if isinstance(result.space, DeepSpace) else "on the whole path"
    text = f"{chose} {where}: every frame is the image itself"
    if result.state.epochs:
        entropy, even = result.state.epochs[-1]["entropy"], math.log(len(result.space.candidates))
        text += f"; the mean entropy of τ at the end is {entropy:.3f} nats (equal weights have {even:.3f})"
    return f"{text}. More held-out images, or criterion='loss', may decide more."


def budget_warning(result: SearchResult) -> str | None:
    """The text of the warning where the budget left choices to τ, or a ranking overran it; None where neither is so."""
    counts, config = result.decidedness(), result.config
    limits = {"max_images": config.max_images, "max_minutes": config.max_minutes}
    given = ", ".join(f"{name}={value}" for name, value in limits.items() if value is not None)
    if result.ranking is not None and _overrun(result):
        return (
            f"the budget ({given}) was spent before the ranking, whose first round scores all "
            f"{len(result.ranking.entries)} chains, could end: the search took {_images(result):.0f} images and "
            f"{result.seconds / 60:.2g} minutes. Raise the budget, or lower candidates or first_images"
        )
    if counts is None or not counts.edges_from_tau + counts.nodes_from_tau:
        return None
    return (
        f"the budget ({given}) was spent before {counts.edges_from_tau} of {counts.edges} edges and "
        f"{counts.nodes_from_tau} of {counts.nodes} nodes were judged: they were read from τ. Raise the budget, or "
        "lower epochs, tune_epochs or validation_images"
    )


def _overrun(result: SearchResult) -> bool:
    """Whether a search took more than a tenth above its budget."""
    config = result.config
    by_images = _images(result) / config.max_images if config.max_images is not None else 0.0
    by_time = result.seconds / (60 * config.max_minutes) if config.max_minutes is not None else 0.0
    return max(by_images, by_time) > 1.1


def _images(result: SearchResult) -> float:
    """The images that went through the network, each counted every time, as `max_images` counts them."""
    return (result.frames + result.state.evaluated_frames) / result.config.T
