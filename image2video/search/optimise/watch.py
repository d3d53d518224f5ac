"""What a stage of the search says while it runs: its speed, its mean loss, and a stop where a loss is not finite."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from image2video.errors import StateError
from image2video.protocols import Progress


class LossWatch:
    """Keeps the losses of one epoch on the device; raises at the first that is not finite, and names its step.

    Reading a loss back stalls an accelerator, so there it looks only every `every` steps.
    """

    def __init__(self, what: str, first_step: int, device: torch.device) -> None:
        self.what = what
        self.first_step = first_step
        self.every = 1 if device.type == "cpu" else 25
        self._losses: list[Tensor] = []
        self._seen: list[float] = []

    def add(self, loss: Tensor) -> None:
        """Take one more loss."""
        self._losses.append(loss)
        if len(self._losses) >= self.every:
            self._look()

    def mean(self) -> float:
        """The mean of all losses (NaN where there was none)."""
        self._look()
        return sum(self._seen) / len(self._seen) if self._seen else float("nan")

    @property
    def latest(self) -> float:
        """The last loss that was read back."""
        return self._seen[-1] if self._seen else float("nan")

    def _look(self) -> None:
        if not self._losses:
            return
        values = torch.stack(self._losses).float().cpu().tolist()
        self._losses.clear()
        for value in values:
            if not abs(value) < float("inf"):
                raise StateError(
                    f"the {self.what} loss is {value} at step {self.first_step + len(self._seen)}; the search "
                    "stopped and its last checkpoint is kept; lower the learning rate, or search in float32"
                )
            self._seen.append(value)


class Meter:
    """Counts the steps of a stage and reports them with their speed."""

    def __init__(self, progress: Progress | None, stage: str, done: int, total: int) -> None:
        self._progress, self._stage, self._done, self._total = progress, stage, done, total
        self._images, self._begun = 0, time.perf_counter()

    def step(self, images: int, **figures: float) -> None:
        """One more step, on so many images."""
        self._done += 1
        self._images += images
        if self._progress is not None:
            speed = self._images / (time.perf_counter() - self._begun)
            self._progress(self._stage, self._done, self._total, images_per_second=speed, **figures)
