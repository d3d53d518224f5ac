"""Costs measured at a glance, for tests of what stands around them: of 64 images ten times they take longer than the
training of so small a network. What `measure_cost` gives is the subject of tests/training/test_training_evaluate.py.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from image2video.training import Cost, measure_cost

CALLERS = (
    "image2video.assess.scoring",
    "image2video.experiments.run",
    "image2video.cli.train",
    "image2video.cli.evaluate",
    # mmsegmentation is an extra, which an environment of the least versions lacks.
    *(("image2video.reproduce.segment",) if find_spec("mmseg") else ()),
)


def glance(model: nn.Module, input_size: tuple[int, int, int], batch: int = 1, **how: Any) -> Cost:
    """The cost of one image as `measure_cost` gives it, from one pass of at most two."""
    return measure_cost(model, input_size, min(batch, 2), repeats=1, warmup=0)


def quick_costs() -> Iterator[None]:
    """The body of a fixture under which runs and commands measure at a glance."""
    with pytest.MonkeyPatch.context() as patch:
        for module in CALLERS:
            patch.setattr(f"{module}.measure_cost", glance)
        # Garbage that goes within a call would count against its peak: not at a glance.
        patch.setattr("image2video.training.live_memory.gc", SimpleNamespace(collect=int))
        yield
