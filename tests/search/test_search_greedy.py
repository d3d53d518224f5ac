"""Greedy forward selection of frames on predictions that are made by hand."""

import math
from itertools import combinations, pairwise

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from image2video.search.rank.calibration import SHARPEST, SOFTEST, calibrate, fit_temperature
from image2video.search.rank.curve import GreedySet, prefixes, scored_sets, set_temperatures, smallest_of_the_best
from image2video.search.rank.frame_cache import FrameCache
from image2video.search.rank.greedy import greedy_order, set_logits

CLASSES = 3


def cache_of(frames: list[Tensor], labels: Tensor) -> FrameCache:
    return FrameCache(torch.stack(frames).float().log_softmax(-1), labels)


def knows(rows: Tensor, labels: Tensor, sure: float = 3.0) -> Tensor:
    """Logits that are right and sure on some images, and say nothing of the others."""
    logits = torch.zeros(len(labels), CLASSES)
    logits[rows, labels[rows]] = sure
    return logits


def noise(count: int, seed: int, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(count, CLASSES, generator=torch.Generator().manual_seed(seed))


def planted() -> FrameCache:
    """Frames 0, 3 and 5 know a third of the images each; 1, 2 and 4 are as good as random."""
    labels = torch.arange(90) % CLASSES
    thirds = torch.arange(90).split(30)
    frames = [noise(90, seed) for seed in range(6)]
    for frame, rows in zip((0, 3, 5), thirds, strict=True):
        frames[frame] = knows(rows, labels)
    return cache_of(frames, labels)


def calibrated(cache: FrameCache, frames: tuple[int, ...], average: str) -> float:
    return calibrate(set_logits(cache, frames, average)[None], cache.labels)[1].item()


@pytest.mark.parametrize("criterion", ["calibrated", "accuracy"])
@pytest.mark.parametrize("average", ["mean", "mean_prob"])
def test_the_planted_set_is_found_and_is_the_best_of_all(average: str, criterion: str) -> None:
    cache = planted()
    order = greedy_order(cache, 3, average=average, criterion=criterion)
    # Frames 3 and 5 are worth the same: the first one comes first.
    assert order == [0, 3, 5]
    losses = {frames: calibrated(cache, frames, average) for frames in combinations(range(6), 3)}
    assert min(losses, key=losses.__getitem__) == (0, 3, 5)


@pytest.mark.parametrize("average", ["mean", "mean_prob"])
def test_a_useless_frame_is_never_chosen(average: str) -> None:
    """Noise, a copy of what is there, and what is sure and wrong; with the mean of logits also what says nothing."""
    cache = planted()
    labels = cache.labels
    wrong = knows(torch.arange(90), (labels + 1) % CLASSES)
    nothing = [torch.zeros(90, CLASSES)] if average == "mean" else []
    frames = [*cache.log_probs, cache.log_probs[0].clone(), wrong, *nothing]
    order = greedy_order(cache_of(frames, labels), 9, average=average)
    assert order == [0, 3, 5]


def test_a_frame_is_taken_once() -> None:
    order = greedy_order(planted(), 250)
    assert len(set(order)) == len(order) <= 6


def both_ways() -> FrameCache:
    """Frame 1 repairs more images, but is sure and wrong on some; frame 2 repairs fewer, and harms none."""
    labels = torch.arange(60) % CLASSES
    bare = knows(torch.arange(60), labels, sure=1.0)
    bare[:12] = knows(torch.arange(12), (labels[:12] + 1) % CLASSES, sure=0.5)
    bold, careful = torch.zeros(60, CLASSES), torch.zeros(60, CLASSES)
    bold[torch.arange(12), labels[:12]] = 1.0
    bold[torch.arange(12, 18), (labels[12:18] + 1) % CLASSES] = 30.0
    careful[torch.arange(5), labels[:5]] = 1.0
    return cache_of([bare, bold, careful], labels)


def test_the_criteria_differ_where_that_is_planted() -> None:
    cache = both_ways()
    assert greedy_order(cache, 2, criterion="accuracy") == [0, 1]
    assert greedy_order(cache, 2, criterion="calibrated")[:2] == [0, 2]


@pytest.mark.parametrize("start", ["identity", "best"])
@pytest.mark.parametrize("average", ["mean", "mean_prob"])
def test_the_criterion_rises_with_every_frame(average: str, start: str) -> None:
    labels = torch.arange(80) % CLASSES
    seen = 0
    for seed in range(6):
        frames = [noise(80, 100 * seed + f) + knows(torch.arange(80), labels, sure=2.0) for f in range(12)]
        cache = cache_of(frames, labels)
        order = greedy_order(cache, 8, average=average, start=start)
        losses = [calibrated(cache, tuple(order[:count]), average) for count in range(1, len(order) + 1)]
        assert all(after < before for before, after in pairwise(losses))
        seen += len(losses)
        accurate = greedy_order(cache, 8, average=average, start=start, criterion="accuracy")
        right = [
            (set_logits(cache, accurate[:count], average).argmax(-1) == labels).sum().item()
            for count in range(1, len(accurate) + 1)
        ]
        assert right == sorted(right)
    assert seen > 20


def test_the_best_single_frame_may_begin() -> None:
    labels = torch.arange(60) % CLASSES
    cache = cache_of([noise(60, 1), noise(60, 2), knows(torch.arange(60), labels)], labels)
    assert greedy_order(cache, 3)[:2] == [0, 2]
    assert greedy_order(cache, 3, start="best") == [2]


def test_what_a_set_predicts_is_the_average() -> None:
    cache = planted()
    logits = cache.log_probs[[1, 2, 4]]
    mean = set_logits(cache, [1, 2, 4], "mean")
    torch.testing.assert_close(mean.softmax(-1), logits.mean(0).softmax(-1))
    prob = set_logits(cache, [1, 2, 4], "mean_prob")
    torch.testing.assert_close(prob.softmax(-1), logits.softmax(-1).mean(0))


def test_probabilities_that_float32_cannot_hold_are_kept() -> None:
    labels = torch.zeros(2, dtype=torch.long)
    sure = torch.tensor([[0.0, 300.0, 0.0]] * 2)
    cache = cache_of([sure, sure + torch.tensor([5.0, 0.0, 0.0])], labels)
    loss = cross_entropy(set_logits(cache, [0, 1], "mean_prob"), labels).item()
    # −log of the mean of e^−300 and e^−295.
    assert loss == pytest.approx(295 + math.log(2) - math.log1p(math.exp(-5)), abs=1e-3)


class TestTemperatures:
    """One fit for the estimates and for the search."""

    def test_it_is_where_the_loss_is_lowest(self) -> None:
        labels = torch.arange(200) % CLASSES
        logits = torch.stack([noise(200, s, 1.5) + knows(torch.arange(200), labels, sure=1.0) for s in range(5)])
        temperatures, losses = calibrate(logits, labels)
        grid = torch.logspace(-1.3, 1.3, 1500)
        for number in range(5):
            best = min(cross_entropy(logits[number] / t, labels).item() for t in grid)
            assert losses[number].item() == pytest.approx(best, abs=2e-6)
            exact = cross_entropy(logits[number].double() / temperatures[number], labels).item()
            assert losses[number].item() == pytest.approx(exact, abs=1e-6)
            assert fit_temperature(logits[number], labels) == pytest.approx(temperatures[number].item(), rel=1e-4)

    def test_it_stays_within_its_range(self) -> None:
        labels = torch.arange(30) % CLASSES
        right = knows(torch.arange(30), labels)
        temperatures, losses = calibrate(torch.stack([right, -right, torch.zeros(30, CLASSES), 1e3 * right]), labels)
        assert temperatures.min() >= SHARPEST
        assert temperatures.max() <= SOFTEST + 1e-9
        assert temperatures[1] == pytest.approx(SOFTEST)
        assert losses[0] < 1e-6
        assert losses[2] == pytest.approx(torch.tensor(3.0).log().item(), abs=1e-6)

    def test_images_without_a_label_do_not_count(self) -> None:
        labels = torch.arange(60) % CLASSES
        logits = noise(60, 0) + knows(torch.arange(60), labels)
        some = torch.where(torch.arange(60) < 40, labels, -100)
        assert fit_temperature(logits, some) == fit_temperature(logits[:40], labels[:40])


class TestTheNumberOfFrames:
    """The smallest set within one standard error of the best one, within the cost that is allowed."""

    @staticmethod
    def chosen(cache: FrameCache, criterion: str = "calibrated", max_cost: float | None = None) -> GreedySet:
        sets = [GreedySet((0,), "mean")]
        for average in ("mean", "mean_prob"):
            sets += prefixes(greedy_order(cache, 8, average=average, criterion=criterion), average)
        scores = scored_sets(cache, sets, set_temperatures(cache, sets))
        return sets[smallest_of_the_best(sets, scores, criterion, max_cost)]

    def test_frames_that_are_worth_it_are_taken(self) -> None:
        assert self.chosen(planted()).frames == (0, 3, 5)

    def test_a_gain_within_the_error_is_not_worth_a_frame(self) -> None:
        labels = torch.arange(30) % CLASSES
        bare = noise(30, 0) + knows(torch.arange(30), labels)
        other = noise(30, 1) + knows(torch.arange(30), labels, sure=1.5)
        cache = cache_of([bare, other], labels)
        assert greedy_order(cache, 2) == [0, 1]
        assert self.chosen(cache).frames == (0,)

    def test_the_cost_is_kept(self) -> None:
        assert self.chosen(planted(), max_cost=2).frames == (0, 3)
        assert self.chosen(planted(), max_cost=1.5).frames == (0,)
