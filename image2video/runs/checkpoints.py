"""The pair of checkpoints that a killed run goes on from: one rule, whichever of the two is missing or damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from image2video.errors import InputError
from image2video.runs.atomic import damaged_name, previous_name, torch_load_last

T = TypeVar("T")


def has_checkpoint(path: Path) -> bool:
    """Whether a run has ever written the checkpoint `path`, whatever is left of it."""
    return any(one.is_file() for one in (path, previous_name(path), damaged_name(path)))


def load_checkpoint(path: Path) -> Any | None:
    """What a run goes on from: `path`, or where that is missing or damaged the one before it, with a warning.

    All processes of a job must call this together. The main one reads; the others get what it found, and need not see
    its disk.

    Returns:
        What `atomic_torch_save(path, …, keep_previous=True)` wrote; None where it never wrote anything.

    Raises:
        InputError: what is left is damaged. A run that has come so far is not begun anew without being asked.

    """
    return from_main(_found(path) if is_main() else None)


def is_main() -> bool:
    """Whether this process is the main one of its job."""
    return not _has_others() or dist.get_rank() == 0


def from_main(value: T) -> T:
    """The main process's value, in every process of a job; all must call this together."""
    if not _has_others():
        return value
    sent = [value]
    dist.broadcast_object_list(sent, src=0)
    return sent[0]


def _found(path: Path) -> Any | None:
    if not has_checkpoint(path):
        return None
    if not path.is_file() and not previous_name(path).is_file():
        raise InputError(
            f"{damaged_name(path)} is damaged and there is no checkpoint before it; restore a copy as {path.name}, or "
            "begin anew with overwrite=True (--overwrite)"
        )
    return torch_load_last(path)


def _has_others() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
