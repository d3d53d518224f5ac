"""The folder of a training run: checkpoint, weights, history, settings, versions, curves."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from image2video.data import DataSource
from image2video.errors import InputError
from image2video.runs.atomic import damaged_name, previous_name
from image2video.runs.checkpoints import has_checkpoint, load_checkpoint
from image2video.runs.curve_file import CurveFile
from image2video.runs.folders import (
    OutputDirectory,
    atomic_torch_save,
    atomic_write_json,
    atomic_write_text,
    versions,
)
from image2video.runs.random_state import random_state, set_random_state
from image2video.runs.settings import built, same
from image2video.runs.weights import check_entries, check_fits
from image2video.settings.training import TrainConfig
from image2video.training.checkpoint import CHECKPOINT_FORMAT, check_same, save_weights
from image2video.training.engine import Engine
from image2video.training.result import EpochRecord, TrainResult

CHECKPOINT = "checkpoint.pt"
_ENTRIES = {
    **dict.fromkeys(("config", "dataset", "settings", "model", "optimizer", "best", "random"), dict),
    "history": list,
}
"""What a checkpoint holds, and of which type."""


class RunFolder:
    """Writes what a run leaves behind; every file is whole or not there."""

    def __init__(
        self,
        folder: OutputDirectory,
        config: TrainConfig,
        data: DataSource,
        settings: dict[str, Any] | None,
        network: dict[str, Any],
    ) -> None:
        self._folder, self._config, self._data = folder, config, data
        self._settings = settings or {}
        self._writer: CurveFile | None = None
        checkpoint = folder / CHECKPOINT
        for beside in (previous_name(checkpoint), damaged_name(checkpoint)):
            _ = folder / beside.name  # lists it as this run's own, so that overwriting removes it
        if not (folder.resumed and has_checkpoint(checkpoint)):
            record = {**self._settings, **config.to_dict()}
            atomic_write_text(folder / "config.yaml", yaml.safe_dump(record, sort_keys=False, allow_unicode=True))
        self._network = network

    def note_run(self) -> None:
        """Record what later commands on these weights do by default; of a resumed run, once its checkpoint fits."""
        data = self._data
        self._folder.note(
            versions=versions(), dataset=data.describe(), classes=list(data.classes), network=self._network
        )

    def save_epoch(self, engine: Engine, history: list[EpochRecord], best_state: dict[str, Tensor]) -> None:
        """After an epoch: curves, history, the best weights, and last the checkpoint, which makes it count."""
        record = history[-1]
        self._add_curves(record)
        atomic_write_json(self._folder / "history.json", [asdict(epoch) for epoch in history])
        checkpoint = {
            "format": CHECKPOINT_FORMAT,
            "epochs_done": len(history),
            "config": self._config.to_dict(),
            "dataset": self._data.describe(),
            "settings": self._settings,
            "history": [asdict(epoch) for epoch in history],
            "best": best_state,
            "random": random_state(),
            **engine.state(),
        }
        atomic_torch_save(self._folder / CHECKPOINT, checkpoint, keep_previous=True)
        save_weights(self._folder / "best.safetensors", best_state)
        self._folder.note(epochs_done=len(history), device=str(engine.device))

    def finish(self, engine: Engine, result: TrainResult, best_state: dict[str, Tensor]) -> TrainResult:
        """Writes both sets of weights and the result."""
        save_weights(self._folder / "best.safetensors", best_state)
        save_weights(self._folder / "last.safetensors", engine.evaluated_state())
        atomic_write_json(self._folder / "result.json", result.to_dict())
        self.close()
        self._folder.finish(seconds=result.seconds)
        return TrainResult(**{**vars(result), "out": self._folder.path})

    def close(self) -> None:
        """Flushes the curves."""
        if self._writer is not None:
            self._writer.close()

    def _add_curves(self, record: EpochRecord) -> None:
        if self._writer is None:  # purge_step hides what a killed process wrote beyond its last checkpoint
            self._writer = CurveFile(self._folder / "tensorboard", purge_step=record.epoch)
        for name, value in record.figures().items():
            self._writer.add_scalar(name, value, record.epoch)
        self._writer.flush()


def restore(
    path: Path, engine: Engine, config: TrainConfig, data: DataSource, settings: dict[str, Any] | None
) -> tuple[list[EpochRecord], dict[str, Tensor]]:
    """Goes on from the checkpoint at `path`, or the one before it (see `load_checkpoint`), where there is one.

    Sets the engine, returns the history and the best weights so far. All processes must call this. Raises `InputError`
    where the run was begun with another recipe, data set or model.
    """
    saved = load_checkpoint(path)
    if saved is None:
        return [], {}
    if not isinstance(saved, dict) or not same(saved.get("format"), CHECKPOINT_FORMAT):
        raise InputError(f"{path} is no training checkpoint of format {CHECKPOINT_FORMAT}; begin anew with overwrite")
    check_entries(saved, _ENTRIES, str(path))
    check_same(_without(saved["config"], "device"), _without(config.to_dict(), "device"), "recipe")
    check_same(_without(saved["dataset"], "name"), _without(data.describe(), "name"), "data set")
    check_same(saved["settings"], settings or {}, "setting")
    engine.load_state(saved)
    check_fits(saved["best"], engine.module.state_dict(), f"the best weights in {path}")
    if engine.accelerator.is_main_process:  # the generators saved are the main process's
        set_random_state(saved["random"])
    try:
        return [built(EpochRecord, record) for record in saved["history"]], saved["best"]
    except TypeError as error:
        raise InputError(f"{path} holds records of another form ({error}); begin anew with overwrite") from error


def _without(record: dict[str, Any], place: str) -> dict[str, Any]:
    """The record without what may differ when a run goes on: the device, or the folder of the data."""
    return {key: value for key, value in record.items() if key != place}
