"""Training a network: epochs, held-out evaluation, the best and the last weights, and resuming."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn

from image2video.data import DataSource
from image2video.errors import StateError
from image2video.protocols import Progress
from image2video.runs.folders import OutputDirectory
from image2video.settings.training import TrainConfig
from image2video.training.engine import Engine
from image2video.training.records import CHECKPOINT, RunFolder, restore
from image2video.training.result import EpochRecord, TrainResult, best_epoch
from image2video.training.trained import network_record


def train(
    model: nn.Module,
    data: DataSource,
    config: TrainConfig | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    accelerator: Accelerator | None = None,
    settings: dict[str, Any] | None = None,
) -> TrainResult:
    """Train any classifier or network for segmentation, bare or wrapped, in place.

    Afterwards `model` holds the last weights. The epoch to keep is chosen on `data.holdout`, which comes from the
    training images, by top-1 or, for segmentation (`data.task`), by mIoU; `data.test` is read once, at the end, with
    the kept and the last weights (the averaged ones where `config.ema` is on). Seeds the global generators of python,
    numpy and torch once with `config.seed`. On a CPU, with equal versions and thread counts, a run that was killed and
    is resumed ends bit for bit as one that was not; on CUDA some kernels are not deterministic.

    Args:
        model: images `(B, C, H, W)` → `(B, classes)`, or `(B, classes, h, w)` for segmentation; trained in place.
        data: as `load_data` gives it.
        config: the recipe; `TrainConfig()` by default.
        out: folder for `best.safetensors`, `last.safetensors`, `checkpoint.pt`, `history.json`, `result.json`,
            `config.yaml`, `run.json` and `tensorboard/`; nothing is written without it.
        resume: go on after the last complete epoch of the run in `out`, if there is one.
        overwrite: replace the run in `out`.
        progress: called after every step.
        accelerator: of Hugging Face accelerate; one for `config.device` by default.
        settings: what else to record in `config.yaml` (the model, the genotype, …); must be equal when resuming.

    Returns:
        The history, and the accuracies of the kept and the last weights.

    Raises:
        ExistsError: `out` holds another run, and neither `resume` nor `overwrite` says what to do.
        InputError: the model's output does not fit the data, or a resumed run had other settings.
        StateError: the loss became NaN or infinite, and the message names the step; or another job writes into `out`.

    Example:
        >>> from image2video.data import load_data
        >>> data = load_data("digits", train_images=100)
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
        >>> result = train(net, data, TrainConfig(epochs=2, device="cpu"))
        >>> len(result.history), result.test_last.n
        (2, 599)

    """
    config = config or TrainConfig()
    accelerator = accelerator or make_accelerator(config.device)
    set_seed(config.seed, device_specific=accelerator.num_processes > 1)
    # What can be refused is refused before the folder of an earlier run is replaced.
    engine = Engine(model, data, config, accelerator, progress)
    with contextlib.ExitStack() as opened:
        folder = None
        if out is not None and accelerator.is_main_process:
            output = opened.enter_context(OutputDirectory(out, "train", overwrite=overwrite, resume=resume))
            folder = opened.enter_context(
                contextlib.closing(RunFolder(output, config, data, settings, network_record(model)))
            )
        accelerator.wait_for_everyone()  # the main process may be replacing the folder
        history: list[EpochRecord] = []
        best_state: dict[str, torch.Tensor] = {}
        if out is not None and resume:
            history, best_state = restore(Path(out) / CHECKPOINT, engine, config, data, settings)
        if folder is not None:
            folder.note_run()
        while len(history) < config.epochs:
            record = _one_epoch(engine, data, len(history))
            history.append(record)
            if best_epoch(history) == record.epoch:
                best_state = engine.evaluated_state()
            if folder is not None:
                folder.save_epoch(engine, history, best_state)
        result = _finish(engine, data, history, best_state)
        return result if folder is None else folder.finish(engine, result, best_state)


def make_accelerator(device: str = "auto") -> Accelerator:
    """Make an accelerator for a device.

    Args:
        device: `auto`, `cpu`, `cuda` or `mps`.

    Returns:
        The accelerator, of Hugging Face accelerate.

    Raises:
        StateError: the device is not there, or another was already chosen in this process.

    """
    accelerator = Accelerator(cpu=device == "cpu")
    if device not in ("auto", accelerator.device.type):
        raise StateError(
            f"device={device!r} was asked for, accelerate gives {accelerator.device.type!r}: it is not on this "
            "machine, or this process has already begun on the other one"
        )
    return accelerator


def _one_epoch(engine: Engine, data: DataSource, epoch: int) -> EpochRecord:
    start = time.perf_counter()
    loss, lr = engine.train_epoch(epoch)
    trained = time.perf_counter() - start
    held_out = engine.evaluate(data.holdout, "holdout") if data.holdout is not None else None
    if held_out is not None and not abs(held_out.loss) < float("inf"):
        raise StateError(f"the held-out loss is {held_out.loss} after epoch {epoch}; lower lr={engine.config.peak_lr}")
    return EpochRecord(
        epoch=epoch,
        train_loss=loss,
        holdout_top1=held_out.top1 if held_out else None,
        holdout_loss=held_out.loss if held_out else None,
        lr=lr,
        images_per_second=data.train.num_images / trained,
        seconds=time.perf_counter() - start,
        holdout_miou=held_out.miou if held_out else None,
    )


def _finish(
    engine: Engine, data: DataSource, history: list[EpochRecord], best_state: dict[str, torch.Tensor]
) -> TrainResult:
    best = best_epoch(history)
    last_state = engine.evaluated_state()
    engine.load_evaluated(last_state)
    test_last = engine.evaluate(data.test, "test")
    test_best = test_last
    if best != len(history) - 1:
        engine.load_evaluated(best_state)
        test_best = engine.evaluate(data.test, "test")
        engine.load_evaluated(last_state)
    return TrainResult(
        history=tuple(history),
        best_epoch=best,
        test_best=test_best,
        test_last=test_last,
        seconds=sum(record.seconds for record in history),
        trained_images=len(history) * data.train.num_images,
    )
