"""What a segmentor's assessment may take: frames within the time, batches within the memory."""

from types import SimpleNamespace

import pytest
import torch

from image2video.assess.segmentor import network
from image2video.assess.segmentor.budget import Budget
from image2video.assess.segmentor.network import ClipScorer
from image2video.assess.segmentor.searches import frames_at_once
from image2video.errors import InputError
from image2video.training import Cost

COST = Cost(1.0, 2.0, 3, 4.0)


def test_rounds_of_timing_are_fewer_where_time_is_short():
    budget = Budget(minutes=10, ends=100, choosing=20, batch=2, most=2)
    assert budget.searches == 4 * 4 * 16
    assert budget.timing == 9 * 3 * 3
    frames, rounds = budget.plan(0.01)  # 54 000 frames in all
    assert rounds == 3
    assert frames == 54000 - 100 - 3 * budget.timing
    assert budget.plan(0.5) == (1080 - 100 - budget.timing, 1)
    assert budget.plan(10.0) == (budget.searches, 1)  # what was begun is brought to an end
    budget.check(0.5)
    with pytest.raises(InputError, match=r"minutes=10 is too little for these images; give at least 81"):
        budget.check(10.0)


def test_labels_that_are_larger_than_images_count():
    class Pictures:
        index = torch.arange(3)

        def at(self, index):
            assert len(index) == 3
            return self

        def batches(self, size):
            sizes = ((8, 8), (8, 8)), ((8, 8), (4096, 4096)), ((16, 8), (8, 8))
            read = [(torch.empty(1, 3, *image), torch.empty(1, *label)) for image, label in sizes]
            return SimpleNamespace(epoch=lambda number: iter(read))

    assert frames_at_once(Pictures(), 2) == 2


class Timings:
    """Costs of batches that fit, and the error of those that do not."""

    def __init__(self, most, error):
        self.most, self.error, self.seen = most, error, []

    def __call__(self, model, size, batch, repeats):
        self.seen.append(batch)
        if batch > self.most:
            raise self.error
        return COST


def timed(monkeypatch, most, error, progress=None):
    pytest.importorskip("mmseg")
    timings = Timings(most, error)
    monkeypatch.setattr(network, "measure_cost", timings)
    monkeypatch.setattr(ClipScorer, "example", torch.zeros(1, 3, 8, 8))
    monkeypatch.setattr(ClipScorer, "under", lambda self, finalist: torch.nn.Identity())
    scorer = ClipScorer(SimpleNamespace(), torch.arange(2), torch.arange(1), 0)
    return scorer.costs([None, None], 8, 2, progress), timings


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_a_batch_that_the_memory_does_not_hold_is_halved(monkeypatch, error):
    steps = []
    (found, batch), timings = timed(monkeypatch, 2, error, lambda *step: steps.append(step))
    assert batch == 2
    assert [one.batched for one in found] == [COST, COST]
    assert timings.seen == [1, 8, 1, 4, *[1, 2] * 4]
    assert steps == [("cost", done, 4) for done in (1, 2, 3, 4)]


def test_no_memory_for_one_image_leaves_the_times_out(monkeypatch):
    (found, _), _ = timed(monkeypatch, 0, torch.OutOfMemoryError("CUDA out of memory"))
    assert found == []
    with pytest.raises(RuntimeError, match="another"):
        timed(monkeypatch, 0, RuntimeError("another"))
