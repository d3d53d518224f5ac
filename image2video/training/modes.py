"""A model in eval mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode; afterwards every module has the mode that it had, whatever goes wrong."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        # Not by `model.train()`, which would also change modules that their owner keeps in eval mode.
        for module, training in modes.items():
            module.training = training
