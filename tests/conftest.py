"""What all tests share."""

import gc
import importlib
import os
from collections.abc import Iterator

import pytest

from image2video.inject import planning


def pytest_collection_finish() -> None:
    """Garbage collection leaves out the million objects of the imported libraries: mmengine collects at every data set.

    What tests make is collected as ever. The first step of an optimiser would import torch._dynamo.
    """
    importlib.import_module("torch._dynamo")
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _nothing_waits_for_the_disk() -> Iterator[None]:
    """Files of tests need not outlive a loss of power. What a failing flush does is shown by flushes that fail."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture
def trace_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All plans of the test share the trace of its one network, which must be the same whenever it is planned."""
    trace_forward = planning.trace_forward
    traces = {}

    def once(backbone, example, **options):
        key = (id(backbone), tuple(example.shape), *options.items())
        traces[key] = traces.get(key) or (trace_forward(backbone, example, **options), backbone)
        return traces[key][0]

    monkeypatch.setattr(planning, "trace_forward", once)
