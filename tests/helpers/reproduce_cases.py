"""A table that takes no time, and runs that are not run, for the tests of the reproduction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from image2video.reproduce import Book, Run, Worker, load_experiment, work

TINY = {
    "data": "digits",
    "model": "cifar_resnet8",
    "image_size": 8,
    "train_images": 60,
    "holdout": 0.25,
    "T": 2,
    "epochs": 1,
    "batch_size": 32,
    "seeds": 2,
}
TABLE: dict[str, Any] = {
    "title": "A table",
    "source": "nobody, Table 1",
    "rows": [{"name": "digits", "paper": {"bare": 90.0}, "scales": {"smoke": TINY}}],
    "arms": [
        {"name": "bare", "title": "bare network"},
        {"name": "bare_long", "title": "bare network, T times the epochs", "equal_compute": True},
        {
            **{"name": "averaged", "title": "averaged at test time", "genotype": "fixed_weights", "fusion": "none"},
            **{"budget": "none", "start": "bare_long"},
        },
        {"name": "moving", "title": "translation, TSM", "genotype": "translate_x(0.1)", "fusion": "tsm"},
    ],
    "contrasts": [{"name": "moving", "lead": "at equal compute", "a": "moving", "b": "bare_long", "headline": True}],
}


def table(folder: Path, **changes: Any) -> Path:
    """A table's file, with other values for some of its keys."""
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({**TABLE, **changes}))
    return path


def small_space(folder: Path) -> str:
    """The file of a space of three ops and three edges, which is searched in a second."""
    path = folder / "small.yaml"
    path.write_text("name: small\nops: {rotate: 8, translate_x: 0.05, identity: null}\nnodes: 2\n")
    return str(path)


def rows(**changes: Any) -> list[dict[str, Any]]:
    """The rows of the table, with other settings."""
    (row,) = TABLE["rows"]
    return [{**row, "scales": {"smoke": {**TINY, **changes}}}]


class Pretended:
    """Stands in for `run_classification`: writes down what was asked for, trains nothing."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.failing: set[str] = set()
        self.stop_at: int | None = None

    def __call__(
        self, arm: Any, setting: Any, seed: int, *, training: Path, load: Any, start: Path | None, **more: Any
    ) -> Any:
        training.mkdir(parents=True, exist_ok=True)
        (training / "checkpoint.pt").write_text("half a run")
        if self.stop_at == len(self.asked):
            raise KeyboardInterrupt
        self.asked.append((arm.name, seed))
        if arm.name in self.failing:
            raise RuntimeError(f"no luck with {arm.name} <b>&")
        data, epochs = load(setting), arm.total_epochs(setting)
        T = arm.frames_per_image(arm.frames(setting))
        seen = epochs * data.train.num_images
        record = {
            **{"score": 50.0 + len(arm.name) + seed, "loss": 1.0, "genotype": None, "origin": None, "policy": None},
            **{"search_minutes": 0.0, "T": T, "epochs": epochs, "images_seen": seen, "frames": seen * T},
            **{"parameters": 10, "macs": 1e6 * T, "ms": 0.5 * T, "peak_mib": None, "seconds": 1.0},
            **{"training_seconds": 1.0},
        }
        return record, {"weight": torch.zeros(1)}


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    """Runs that take no time; what they were asked for."""
    stand_in = Pretended()
    monkeypatch.setattr(work, "run_classification", stand_in)
    return stand_in


def worked(path: Path | str, out: Path, **options: Any) -> tuple[list[Run], Book, list[Run]]:
    """Do the table at the smoke scale: the runs that are left, the book, and all runs."""
    experiment = load_experiment(str(path))
    worker = Worker(out, device="cpu", **options)
    return worker.run(experiment, "smoke"), worker.book, worker.planned(experiment, "smoke")
