"""What all tests share."""

import gc
import importlib
import os
from collections.abc import Iterator

import pytest


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
