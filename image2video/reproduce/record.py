"""What the records of all runs hold beside their scores: what was found, and what it cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from image2video.protocols import Progress
from image2video.reproduce.genotypes import Chosen
from image2video.reproduce.policies import Policy
from image2video.training import Cost

Named = Callable[[str], Progress | None]
"""The progress of a stage by its name; None where nobody looks."""


def costs(
    chosen: Chosen | None, policy: Policy, cost: Cost, *, T: int, epochs: float, images_seen: int, seconds: float
) -> dict[str, Any]:
    """The genotype and the policy with the minutes of their searches, and what an arm has seen and costs.

    T: frames per image; `seconds` of training. `macs`, `ms` and `peak_mib` are of the prediction of one image.
    """
    return {
        "genotype": None if chosen is None else str(chosen.genotype),
        "origin": None if chosen is None else chosen.origin,
        "policy": policy.text,
        "search_minutes": ((0 if chosen is None else chosen.seconds) + policy.seconds) / 60,
        "T": T,
        "epochs": epochs,
        "images_seen": images_seen,
        "frames": images_seen * T,
        "parameters": cost.params,
        "macs": cost.macs_per_image,
        "ms": cost.ms_per_image,
        "peak_mib": cost.peak_mib_per_image,
        "training_seconds": seconds,
    }
