"""What the records of all runs hold beside their scores: what was found, and what it cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from image2video.experiments import run
from image2video.experiments.genotypes import Chosen
from image2video.protocols import Progress
from image2video.reproduce.policies import Policy
from image2video.training import Cost

Named = Callable[[str], Progress | None]
"""The progress of a stage by its name; None where nobody looks."""


def found(chosen: Chosen | None, policy: Policy) -> dict[str, Any]:
    """The genotype and the policy of a run, and the minutes of their searches, as JSON values."""
    seconds = policy.seconds if chosen is None else chosen.seconds + policy.seconds
    return {
        "genotype": None if chosen is None else str(chosen.genotype),
        "origin": None if chosen is None else chosen.origin,
        "policy": policy.text,
        "search_minutes": seconds / 60,
    }


def costs(chosen: Chosen | None, policy: Policy, cost: Cost, **seen: Any) -> dict[str, Any]:
    """What was found, and what a run has seen and costs; `seen` is what `experiments.run.costs` takes."""
    return found(chosen, policy) | run.costs(cost, **seen)
