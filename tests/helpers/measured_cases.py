"""Measured runs that are not run, for the tests of what shows them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from reproduce_cases import Pretended, table

from image2video.reproduce import Worker, load_experiment, work
from image2video.reproduce.measures import packed
from image2video.reproduce.outcome import RowOutcome, outcomes
from image2video.reproduce.spec import Experiment

IMAGES = 400
SHARE = {"bare": 0.5, "bare_long": 0.6, "averaged": 0.6, "moving": 0.8}
"""Arm -> the share of images that it gets right; what one gets right, a better one gets right too."""


def measured_rows(
    folder: Path, pretended: Pretended, monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> tuple[Experiment, list[RowOutcome]]:
    """A table with these changes whose runs were measured, in `folder / "out"`, and what came out of it."""

    def run(arm: Any, setting: Any, seed: int, **more: Any) -> Any:
        record, weights = pretended(arm, setting, seed, **more)
        right = torch.arange(IMAGES) < SHARE[arm.name] * IMAGES + seed
        return record | {
            **{"temperature": 1.5, "scaled_loss": 0.9, "ece": 0.2, "scaled_ece": 0.0123, "right": packed(right)},
            **{"consistency": {"2": 0.95, "4": 0.9}, "test_images": IMAGES},
            "curve": [{"epoch": e, "frames": 45 * e, "train_loss": 1.0, "holdout": 40.0 + e} for e in (1, 2, 3)],
        }, weights

    monkeypatch.setattr(work, "run_classification", run)
    experiment = dataclasses.replace(load_experiment(str(table(folder, **changes))), figure="gains")
    worker = Worker(folder / "out", device="cpu")
    worker.run(experiment, "smoke")
    return experiment, outcomes(experiment, "smoke", worker.planned(experiment, "smoke"), worker.book)
