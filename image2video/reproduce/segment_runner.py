"""mmengine's Runner for one run of a table: given weights to begin with, exact resumption, nothing left behind."""

from __future__ import annotations

import gc
import math
import os
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner, set_random_seed
from mmengine.utils import ManagerMixin
from torch import Tensor, multiprocessing, nn

from image2video.data.seeds import derive_seed
from image2video.errors import StateError, UnsupportedError
from image2video.integrations.openmmlab.exact_resume import KEY
from image2video.integrations.openmmlab.loading import FUSION
from image2video.protocols import Progress
from image2video.runs.random_state import random_state, set_random_state
from image2video.runs.texts import read_text

RECORD = "image2video_reproduce"
_OWN = (FUSION, "width")
"""What plain weights do not hold: fusions, and ranges that are learned."""
_LOOK_EVERY = 20  # steps; reading a loss waits for the GPU
_ADVICE = ("Default ``avg_non_ignore`` is False", "Setting ..._NUM_THREADS", "`broadcast_buffers` is deprecated")
"""How those warnings begin."""


@dataclass(frozen=True)
class Fitted:
    """A segmentor after its training, what it reached on `test_dataloader`, and the training's seconds."""

    model: nn.Module
    metrics: dict[str, float]
    seconds: float


def fit(
    config: Config,
    weights: Mapping[str, Tensor],
    accelerator: Accelerator,
    *,
    train: bool = True,
    progress: Progress | None = None,
) -> Fitted:
    """Train a config's segmentor from given weights, plain ones, and test it once with its last weights.

    A training that was killed goes on in `config.work_dir`; with no workers on a CPU it ends as one that went through.
    Random draws depend on the seed and the process alone, not on what a model draws while it is made. What mmengine
    keeps for the whole process (generators, environment, loggers, the default scope) is as before afterwards.

    Raises `StateError` for a loss that is not finite, `UnsupportedError` for several processes on the CPU of a machine
    whose GPUs mmengine would take.
    """
    if accelerator.num_processes > 1 and accelerator.device.type == "cpu" and torch.cuda.is_available():
        raise UnsupportedError(
            "mmengine takes the GPUs it sees; for several processes on CPUs set CUDA_VISIBLE_DEVICES=''"
        )
    with without_advice(), _alone():
        return _fitted(config, weights, accelerator, train, progress)


def _fitted(
    config: Config, weights: Mapping[str, Tensor], accelerator: Accelerator, train: bool, progress: Progress | None
) -> Fitted:
    if train:
        last = _resumable(Path(config.work_dir), accelerator)
        config.load_from, config.resume = None if last is None else str(last), last is not None
    else:
        config.load_from, config.resume = None, False
        config.train_dataloader = config.train_cfg = config.optim_wrapper = config.param_scheduler = None
    runner, watch = Runner.from_cfg(config), Watch(weights, progress)
    if accelerator.num_processes == 1:
        runner.model.to(accelerator.device)
    if train:
        runner.register_hook(watch)
        runner.train()
    else:
        put(weights, _bare(runner.model))
    metrics = {name: float(value) for name, value in runner.test().items()}
    accelerator.wait_for_everyone()  # each process writes its log into the folder, which may be removed now
    return Fitted(_bare(runner.model), metrics, watch.seconds)


class Watch(Hook):
    """Begins a training with given weights and draws, reports its steps, and stops it where the loss is not finite."""

    def __init__(self, weights: Mapping[str, Tensor], progress: Progress | None = None) -> None:
        self._weights, self._progress = weights, progress
        self._before, self._began, self._loss = 0.0, 0.0, math.nan

    @property
    def seconds(self) -> float:
        """What the training took, that before a kill included."""
        return self._before + (time.perf_counter() - self._began if self._began else 0.0)

    def before_train(self, runner: Any) -> None:
        """Put the weights in, and seed the draws of this process, unless the run is resumed."""
        self._began = time.perf_counter()
        if runner.iter == 0:
            put(self._weights, _bare(runner.model))
            set_random_seed(derive_seed(runner.seed, runner.rank) % 2**32)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Report the step, with the loss that was last looked at."""
        done, total = runner.iter + 1, runner.max_iters
        if done == 1 or done % _LOOK_EVERY == 0 or done == total:
            self._loss = float(outputs["loss"].detach())
            if not math.isfinite(self._loss):
                raise StateError(f"the training loss must be finite, got {self._loss} at step {done} of {total}")
        if self._progress is not None:
            self._progress("train", done, total, loss=self._loss)

    def after_train(self, runner: Any) -> None:
        """Stop the clock."""
        self._before, self._began = self.seconds, 0.0

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Write down how long it took so far."""
        checkpoint[RECORD] = {"seconds": self.seconds}

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Go on counting from there."""
        self._before = float(checkpoint.get(RECORD, {}).get("seconds", 0.0))


def put(weights: Mapping[str, Tensor], model: nn.Module) -> None:
    """Load a plain segmentor's weights; fusions and learned ranges keep the values that they have."""
    own = {name: value for name, value in model.state_dict().items() if name.startswith(_OWN)}
    model.load_state_dict({**own, **weights})


def _resumable(folder: Path, accelerator: Accelerator) -> Path | None:
    """The checkpoint to go on from; a run that was begun by another number of processes begins anew."""
    last = latest_checkpoint(folder)
    if last is None:
        return None
    begun = len(torch.load(last, map_location="cpu", weights_only=False)[KEY]["processes"])
    if begun == accelerator.num_processes:
        return last
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        warnings.warn(
            f"{folder.name} was begun by {begun} processes and is begun anew by {accelerator.num_processes}",
            stacklevel=2,
        )
        shutil.rmtree(folder)
    accelerator.wait_for_everyone()
    return None


def latest_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint in a folder that was written whole; None where there is none."""
    pointer = folder / "last_checkpoint"
    if not pointer.is_file():
        return None
    named = (
        folder / Path(read_text(pointer, "name of the last checkpoint").strip()).name
    )  # the folder may have been moved
    if named.is_file():
        return named
    # The name is written last, so where it is cut off its file is whole.
    found = sorted(folder.glob("iter_*.pth"), key=lambda path: int(path.stem.rpartition("_")[2]))
    return found[-1] if found else None


def _bare(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model  # type: ignore[return-value]


@contextmanager
def without_advice() -> Iterator[None]:
    """Leave out the warnings that are for the authors of configs."""
    with warnings.catch_warnings():
        for text in _ADVICE:
            warnings.filterwarnings("ignore", text)
        yield


@contextmanager
def _alone() -> Iterator[None]:
    """Put back what mmengine changes for the whole process."""
    kept, environment, method = random_state(), dict(os.environ), multiprocessing.get_start_method(allow_none=True)
    cudnn = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    instances = {kind: dict(kind._instance_dict) for kind in _managers()}
    try:
        yield
    finally:
        for kind in _managers():
            before = instances.get(kind, {})
            if issubclass(kind, MMLogger):
                _close({name: logger for name, logger in kind._instance_dict.items() if name not in before})
            kind._instance_dict.clear()
            kind._instance_dict.update(before)
        set_random_state(kept)
        os.environ.clear()
        os.environ.update(environment)
        multiprocessing.set_start_method(method, force=True)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = cudnn
        if torch.cuda.is_available():
            gc.collect()  # a runner and its loops hold each other, and with them workers and the memory of a GPU


def _close(loggers: Mapping[str, Any]) -> None:
    for logger in loggers.values():
        for handler in logger.handlers:
            handler.close()


def _managers(kind: Any = ManagerMixin) -> Iterator[Any]:
    """The classes of what mmengine keeps by name."""
    for found in kind.__subclasses__():
        yield found
        yield from _managers(found)
