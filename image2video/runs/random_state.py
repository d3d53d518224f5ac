"""The global random generators, taken and put back: what a checkpoint needs so that a run goes on bit for bit."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from image2video.errors import InputError


def random_state() -> dict[str, Any]:
    """The states of the global generators (python, numpy, torch and its devices) as tensors and plain values."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    state = {
        "python": [version, list(internal), gauss],
        "numpy": [str(name), torch.from_numpy(np.array(keys, dtype=np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Puts back what `random_state` took; the state of a device that is not here is left out.

    Raises `InputError` for anything else.
    """
    try:
        _set(state)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError) as error:
        raise InputError(f"the checkpoint must hold states of random generators: {error}; use another file") from error


def _set(state: dict[str, Any]) -> None:
    """Put the states back, in the order in which they were taken."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([device.cpu() for device in state["cuda"]])
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"].cpu())
