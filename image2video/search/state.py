"""What a search has done so far, and how it is kept: one checkpoint holds all that a later process needs."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from image2video.errors import InputError
from image2video.search.topology import Decisions

CHECKPOINT = "checkpoint/last.pt"
CHECKPOINT_FORMAT = 1


@dataclass
class SearchState:
    """The records of a search; plain values throughout.

    Args:
        done: how many of the selection's units of work are complete.
        decisions: what has been chosen.
        steps: τ during the search: `{"step", "tau"}`, evenly spread.
        epochs: after each epoch (0 is the start): `{"epoch", "weights", "entropy"}` with softmax weights per edge, the
            mean entropy of the rows in nats, and the losses.
        edges: per decided edge the scores of every masked candidate.
        nodes: per decided node the scores of every masked incoming edge.
        score: held-out accuracy and loss of the discretised cell, where it was measured.
        frames: frames that went forward and backward.
        evaluated_frames: frames that went forward for scores.
        seconds: time taken, over all resumed parts.

    """

    done: int = 0
    decisions: Decisions = field(default_factory=Decisions)
    steps: list[dict[str, Any]] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    edges: list[dict[str, Any]] = field(default_factory=list)
    nodes: list[dict[str, Any]] = field(default_factory=list)
    score: dict[str, Any] | None = None
    frames: int = 0
    evaluated_frames: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> SearchState:
        """The state that `to_dict` gave."""
        return cls(**{**record, "decisions": Decisions.from_dict(record["decisions"])})


def random_states() -> dict[str, Any]:
    """The states of the global generators (python, numpy, torch and its devices) as tensors and plain values."""
    version, internal, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    states = {
        "python": [version, list(internal), gauss],
        "numpy": [
            kind,
            torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def restore_random_states(states: dict[str, Any]) -> None:
    """Put back what `random_states` took."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])
    if "mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"].cpu())


def check_same_search(saved: dict[str, Any], now: dict[str, Any], where: object) -> None:
    """Raise `InputError` where a checkpoint was made with other settings; the message lists them."""
    changed = sorted(key for key in {**saved, **now} if saved.get(key) != now.get(key))
    if changed:
        listed = "; ".join(f"{key}: {saved.get(key)!r} then, {now.get(key)!r} now" for key in changed)
        raise InputError(f"{where} is of a search with other settings ({listed}); resume with the same, or overwrite")
