"""What clips of the same kind need again: a small cache of grids, beside all modules."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from image2video.trace.capture import is_plain

MOST_BYTES = 1 << 26
"""Bytes of all grids that are kept; those of an image of 224×224 with five frames are 1.6 MB."""
MOST_ENTRIES = 256

_Value = TypeVar("_Value")


class Kept(Generic[_Value]):
    """The values that were asked for last, as many as fit; safe among threads.

    Args:
        most_bytes: of all values together; a larger one is made each time.
        most_entries: how many values, at most.
    """

    def __init__(self, most_bytes: int = MOST_BYTES, most_entries: int = MOST_ENTRIES) -> None:
        self.most_bytes = most_bytes
        self.most_entries = most_entries
        self._values: OrderedDict[Hashable, tuple[_Value, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], _Value], size: Callable[[_Value], int]) -> _Value:
        """Return the value of a key, made now unless it is kept.

        Args:
            key: everything that the value depends on.
            make: makes it; it runs without the lock, so two threads may make the same value at once.
            size: tells its bytes.

        Returns:
            The value, which nobody may write to.
        """
        with self._lock:
            found = self._values.get(key)
            if found is not None:
                self._values.move_to_end(key)
                return found[0]
        value = make()
        self._add(key, value, size(value))
        return value

    def clear(self) -> None:
        """Forget all values."""
        with self._lock:
            self._values.clear()
            self._bytes = 0

    @property
    def bytes(self) -> int:
        """Bytes of what is kept."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._values)

    def _add(self, key: Hashable, value: _Value, count: int) -> None:
        if count > self.most_bytes:
            return
        with self._lock:
            if key in self._values:
                return
            self._values[key] = value, count
            self._bytes += count
            while self._bytes > self.most_bytes or len(self._values) > self.most_entries:
                _, (_, freed) = self._values.popitem(last=False)
                self._bytes -= freed

    def _after_fork(self) -> None:
        # A lock that another thread held at the fork would stay closed in the child for good, over values half added.
        self._lock = threading.Lock()
        self.clear()


GRIDS: Kept[Any] = Kept()
"""The grids of the process: in no module, so in no state dict, pickle, copy or graph."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=GRIDS._after_fork)


def kept_grid(
    device: torch.device, make: Callable[[], _Value], size: Callable[[_Value], int], *key: Hashable
) -> _Value:
    """Return what `make` gives, kept for calls with the same key where that changes nothing.

    It is made anew in graphs, under transforms and modes, whose tensors are theirs alone, and on accelerators, where
    another stream could read it before it is written.

    Args:
        device: of the grid.
        make: makes it.
        size: tells its bytes.
        key: everything that it depends on.

    Returns:
        The value, which nobody may write to.
    """
    if device.type != "cpu" or not is_plain():
        return make()

    def lasting() -> _Value:
        # Tensors of inference mode could not be saved for a backward pass of a later call.
        with torch.inference_mode(False), torch.no_grad():
            return make()

    return GRIDS.get(key, lasting, size)


def bytes_of(grid: Tensor) -> int:
    """Return the bytes of a tensor."""
    return grid.numel() * grid.element_size()
