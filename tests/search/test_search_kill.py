"""SIGKILL at any moment: the folder can be resumed and ends as it would have."""

import json
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from search_cases import KilledError, Killer, blobs, launch, tiny_network

from image2video.runs.folders import torch_load_last
from image2video.search import SearchConfig, SearchSpace, register_space, search

register_space(SearchSpace("small", ("translate_x(0.1)", "rotate(10)", "identity"), nodes=2))
FILES = ("genotype.json", "tau.json", "scores.json", "config.yaml")
BASE = {"space": "small", "T": 2, "epochs": 2, "warmup_epochs": 1, "batch_size": 10, "device": "cpu"}
WAYS: dict[str, dict[str, Any]] = {
    "first order": {},
    "second order, learned magnitudes": {"second_order": True, "learn_magnitudes": True},
    "single path, accumulated, checkpointed": {
        "relaxation": "single_path",
        "accumulate": 2,
        "checkpoint_activations": True,
    },
    "several orders": {"orders": 2, "epochs": 1, "stop_early": 2.0},
    "one shot": {"selection": "one_shot", "candidates": 12, "first_images": 5},
    "budget": {"max_images": 350},
}
pytestmark = pytest.mark.filterwarnings("ignore:the budget .* was spent before", "ignore:.*chose the identity")


class Copier(Killer):
    """Keeps a copy of the folder as it is at the latest step: what a kill at that moment would leave."""

    def __init__(self, out: Path, copy: Path) -> None:
        super().__init__()
        self.out, self.copy = out, copy

    def __call__(self, stage: str, done: int, total: int, **figures: float) -> None:
        super().__call__(stage, done, total, **figures)
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.out, self.copy)


def run(out: Path, options: dict[str, Any], progress: Killer | None = None) -> list[str]:
    """Go on with a search; the stages of the steps that it took."""
    progress = progress or Killer()
    search(tiny_network(), blobs(60, 0), SearchConfig(**{**BASE, **options}), out=out, resume=True, progress=progress)
    return progress.stages


def assert_equal_files(out: Path, whole: Path) -> None:
    for name in FILES:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


# What the first order does, the second order does too.
@pytest.mark.parametrize("way", [pytest.param("first order", marks=pytest.mark.slow), *list(WAYS)[1:]])
def test_a_search_that_is_stopped_again_and_again_ends_as_one_that_was_not(tmp_path: Path, way: str) -> None:
    whole, out, late = tmp_path / "whole", tmp_path / "stopped", tmp_path / "late"
    stages = run(whole, WAYS[way], Copier(whole, late))
    longest = max(3, stages.count("rank"))  # steps of one unit of work: of which each process does at least one
    draw, at, stops = random.Random(way), 1, 0  # the first stop is before the first checkpoint, …
    while not (out / "genotype.json").exists():
        try:
            run(out, WAYS[way], Killer(at))
        except KilledError:
            stops += 1
        assert stops < 50
        # … the next two are in one epoch after the other, with τ still and moving.
        at = longest + 1 if stops < 3 else draw.randint(longest + 16, longest + 40)
    assert stops >= 2
    assert_equal_files(out, whole)
    assert (late / "checkpoint" / "last.pt").exists()
    assert not (late / "genotype.json").exists()
    assert len(run(late, WAYS[way])) < len(stages)
    assert_equal_files(late, whole)


SCRIPT = """
import json, os, signal, sys
import torch
import image2video.runs.atomic as atomic
from search_cases import blobs, tiny_network
from image2video.search import SearchConfig, SearchSpace, register_space, search

torch.set_num_threads(1)
out, options, what, at = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3], int(sys.argv[4])
count = 0

def step(kind):
    global count
    count += kind == what
    if count == at and kind == what:
        os.kill(os.getpid(), signal.SIGKILL)

class Os:
    def __getattr__(self, name):
        return getattr(os, name)
    def fsync(self, handle):
        step("fsync")
        os.fsync(handle)
    def replace(self, *paths):
        step("replace")
        os.replace(*paths)

atomic.os = Os()
register_space(SearchSpace("small", ("translate_x(0.1)", "rotate(10)", "identity"), nodes=2))
progress = lambda stage, *rest, **figures: step(stage)
search(tiny_network(), blobs(60, 0), SearchConfig(**options), out=out, resume=True, progress=progress)
"""


def start(folder: Path, out: str, options: dict[str, Any], what: str = "nothing", at: int = 0) -> int:
    return launch(folder / "script.py", SCRIPT, folder / out, json.dumps({**BASE, **options}), what, at)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "stages"),
    [
        ("second order, learned magnitudes", "search search fsync select tune replace select tune fsync select"),
        ("one shot", "sampled fsync sampled rank replace rank"),
    ],
)
def test_a_search_that_is_killed_again_and_again_ends_as_one_that_was_not(
    tmp_path: Path, way: str, stages: str
) -> None:
    """SIGKILL at random moments of every stage (in the warm-up and after it), and inside of the writes."""
    assert start(tmp_path, "whole", WAYS[way]) == 0
    draw, out = random.Random(way), tmp_path / "killed"
    for stage in stages.split():
        # The whole write of a checkpoint has one flush and two renames; an epoch has three steps.
        at = draw.randint(1, 4) if stage in ("fsync", "replace") else draw.randint(1, 3)
        assert start(tmp_path, "killed", WAYS[way], stage, at) == -signal.SIGKILL, stage
        if (out / "checkpoint" / "last.pt").exists():
            assert torch_load_last(out / "checkpoint" / "last.pt")["state"]["done"] > 0
    assert start(tmp_path, "killed", WAYS[way]) == 0
    assert_equal_files(out, tmp_path / "whole")
