"""What all tests share."""

import functools
import gc
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import Tensor
from traced_alike import traced_alike

from image2video.data import digit_scenes, memory_source
from image2video.inject import planning


def pytest_collection_finish() -> None:
    """Garbage collection leaves out the million objects of the imported libraries: mmengine collects at every data set.

    What tests make is collected as ever. The first step of an optimiser would import torch._dynamo.
    """
    importlib.import_module("torch._dynamo")
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)  # hypothesis watches every collection: of seven hundred objects, by default


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


@functools.cache
def _scenes(size: int, counts: tuple[int, int]) -> tuple[tuple[Tensor, Tensor], ...]:
    """The scenes of digits; `counts` are what `digit_scenes` reads, of which helpers/few_digits.py makes fewer."""
    return digit_scenes.load_digit_scenes(size)


@pytest.fixture(autouse=True, scope="module")
def _scenes_of_digits_are_made_once(request: pytest.FixtureRequest) -> Iterator[None]:
    """Two thousand scenes take half a second, and are always the same, as tests/data/test_data_segmentation.py says.

    The tests of that folder are about how scenes are made, so they make their own.
    """
    if request.path.parent == Path(__file__).parent / "data":
        yield
        return

    def copies(size: int = 48) -> tuple[tuple[Tensor, Tensor], ...]:
        return tuple((images.clone(), labels.clone()) for images, labels in _scenes(size, digit_scenes._SCENES))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory_source, "load_digit_scenes", copies)
        yield


ALIKE = {
    "assess",
    "cli",
    "experiments",
    "export",
    "integrations",
    "receptive_field",
    "reproduce",
    "search",
    "segmentor",
}
ALIKE |= {"training", "wrap", "test_docs", "test_examples", "test_traced_alike"}
"""Folders and modules whose tests make the same networks again and again, and are not about how they are traced."""
TRACED = "test_words_at_the_door"
"""The module among them that reads the lines of a trace that fails."""


@pytest.fixture(autouse=True, scope="module")
def _networks_that_are_alike_are_traced_once(request: pytest.FixtureRequest) -> Iterator[None]:
    if {request.path.parent.name, request.path.stem} & ALIKE and request.path.stem != TRACED:
        yield from traced_alike()
    else:
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
