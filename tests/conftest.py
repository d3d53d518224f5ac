"""What all tests share."""

import gc
import importlib


def pytest_collection_finish() -> None:
    """Garbage collection leaves out the million objects of the imported libraries: mmengine collects at every data set.

    What tests make is collected as ever. The first step of an optimiser would import torch._dynamo.
    """
    importlib.import_module("torch._dynamo")
    gc.collect()
    gc.freeze()
