"""How much of its budget a search has used: images and minutes, the same on all processes."""

from __future__ import annotations

import time

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast

from image2video.search.state.state import SearchState
from image2video.settings.search import SearchConfig

SEARCH_SHARE = 0.6
"""The training of τ and weights ends when this share of the budget is used (ours)."""

TUNE_SHARE = 0.9
"""Tuning between decisions ends when this share of the budget is used (ours)."""


class Budget:
    """Counts images and time into a `SearchState` and says what share of the budget they are.

    An image counts every time it goes through the network, for training or for a score, whatever T, on whatever process
    (`SearchState.frames` and `.evaluated_frames`, over T). Time is the main process's, over all resumed parts. With a
    limit in minutes, where a stage ends depends on the speed of the machine, so runs are not reproducible; with one in
    images they are.

    Args:
        config: `max_images`, `max_minutes`, `T`.
        accelerator: the processes that count together.
    """

    def __init__(self, config: SearchConfig, accelerator: Accelerator) -> None:
        self.limited = config.max_images is not None or config.max_minutes is not None
        self._max_images, self._max_minutes = config.max_images, config.max_minutes
        self._accelerator = accelerator
        self._T = config.T
        self._images = 0
        self._mark = time.perf_counter()

    def add(self, images: int) -> None:
        """Count images that have gone through this process's network forward and backward."""
        self._images += images

    def settle(self, state: SearchState) -> None:
        """Add what all processes have counted, and the time, to `state`; with several processes all must call it."""
        now = time.perf_counter()
        seconds, self._mark = now - self._mark, now
        images, self._images = self._images, 0
        if self._accelerator.num_processes > 1:
            counted = [images, seconds if self._accelerator.is_main_process else 0.0]
            total = torch.tensor(counted, dtype=torch.float64, device=self._accelerator.device)
            of_all, seconds = self._accelerator.reduce(total, "sum").tolist()
            images = round(of_all)
        state.frames += images * self._T
        state.seconds += seconds

    def spent(self, state: SearchState) -> float:
        """The share of the budget that is used, 0 without one, above 1 when it is over; settles first."""
        if not self.limited:
            return 0.0
        self.settle(state)
        images = (state.frames + state.evaluated_frames) / self._T
        by_images = images / self._max_images if self._max_images is not None else 0.0
        by_time = state.seconds / (60 * self._max_minutes) if self._max_minutes is not None else 0.0
        share = max(by_images, by_time)
        if self._accelerator.num_processes > 1:  # what decides whether all go on must be one number
            share = float(broadcast(torch.tensor([share], dtype=torch.float64, device=self._accelerator.device)))
        return share
