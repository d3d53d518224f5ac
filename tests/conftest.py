"""What all tests share."""

import gc
import importlib
import os
import sys
from collections.abc import Iterator
from types import SimpleNamespace

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


@pytest.fixture(autouse=True, scope="module")
def _what_earlier_modules_left_is_not_searched_again() -> None:
    """Libraries go on to import and to cache; what is no garbage by now will be none."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def _mmengine_neither_collects_nor_beautifies() -> Iterator[None]:
    """mmengine searches all objects for garbage at every data set, and lays out every config that it writes.

    Together that was half of the time of the tests with mmsegmentation. A config means the same without layout.
    """
    with pytest.MonkeyPatch.context() as patch:
        if data_sets := sys.modules.get("mmengine.dataset.base_dataset"):
            patch.setattr(data_sets, "gc", SimpleNamespace(collect=int))
            yapf = importlib.import_module("yapf.yapflib.yapf_api")  # which mmengine imports within its call
            patch.setattr(yapf, "FormatCode", lambda text, **layout: (text, False))
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
