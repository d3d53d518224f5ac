"""mIoU and its errors, and searches whose task is segmentation."""

import warnings
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from sklearn.metrics import jaccard_score
from torch import Tensor, nn
from torch.nn.functional import one_hot

from image2video.data import MemorySet, load_data
from image2video.errors import InputError
from image2video.integrations.timm_backbones import build
from image2video.search import SearchConfig, SearchResult, SearchSpace, register_space, search
from image2video.search.score import measure
from image2video.search.score.measure import score_variants
from image2video.search.score.segmentation import SegmentationScores
from image2video.search.score.task import SegmentationTask
from image2video.segmentation import labelled_pixels, mean_iou, overlaps

K = 5
register_space(SearchSpace("scenes", ("translate_x(0.05)", "rotate(10)"), nodes=1))


def draws(n: int, noise: float, seed: int) -> tuple[Tensor, Tensor]:
    """Labels of n images of 6×8 pixels, class 4 nowhere, some pixels ignored; and predictions that err at random."""
    generator = torch.Generator().manual_seed(seed)
    tilt = torch.rand(n, 1, 1, generator=generator) * 2  # images differ in their classes
    labels = (torch.rand(n, 6, 8, generator=generator) * 2 + tilt).floor().long()
    wrong = torch.rand(n, 6, 8, generator=generator) < noise * tilt
    predicted = torch.where(wrong, torch.randint(4, labels.shape, generator=generator), labels)
    ignored = torch.rand(n, 6, 8, generator=generator) < 0.1
    return labels.masked_fill(ignored, 255), predicted


def logits(predicted: Tensor, scale: float = 3.0) -> Tensor:
    return scale * one_hot(predicted, K).movedim(-1, 1).float()


def scores_of(labels: Tensor, *predicted: Tensor) -> SegmentationScores:
    task = SegmentationTask(K)
    parts = [task.per_image(logits(p), labels) for p in predicted]
    return task.collect(torch.stack([q for q, _ in parts]), torch.stack([x for _, x in parts]))


def test_miou_by_hand() -> None:
    labels = torch.tensor([[[0, 0], [1, 255]], [[0, 1], [1, 1]]])
    predicted = torch.tensor([[[0, 1], [1, 3]], [[0, 0], [1, 1]]])
    counts = overlaps(logits(predicted), labels, K)
    assert counts[0].tolist() == [[1, 1, 0, 0, 0], [2, 2, 0, 0, 0]]
    assert counts[1].tolist() == [[1, 2, 0, 0, 0], [2, 3, 0, 0, 0]]
    assert labelled_pixels(counts).tolist() == [3, 4]
    # All images together: class 0 has 2 of 4, class 1 has 3 of 5; the others are nowhere.
    scores = scores_of(labels, predicted)
    assert scores.accuracy(0) == pytest.approx((2 / 4 + 3 / 5) / 2)
    assert mean_iou(torch.zeros(2, K)).isnan()


def test_miou_is_that_of_sklearn() -> None:
    labels, predicted = draws(30, 0.3, 0)
    known = labels != 255
    expected = jaccard_score(labels[known], predicted[known], average="macro")
    assert scores_of(labels, predicted).accuracy(0) == pytest.approx(expected, abs=1e-12)
    absent = jaccard_score(labels[known], predicted[known], average="macro", labels=range(K), zero_division=0)
    assert absent < expected  # class 4 is nowhere, and is left out


def test_scores_of_two_sets_add_up() -> None:
    labels, first = draws(30, 0.3, 0)
    second = draws(30, 0.6, 1)[1]
    whole = scores_of(labels, first, second, labels.clamp_max(3))
    parts = scores_of(labels[:11], first[:11], second[:11], labels[:11].clamp_max(3))
    parts = parts + scores_of(labels[11:], first[11:], second[11:], labels[11:].clamp_max(3))
    assert (parts.n, parts.variants) == (30, 3)
    assert parts.accuracy_gap(0, 1) == whole.accuracy_gap(0, 1)
    assert parts.accuracy(2) == 1
    assert parts.pick([2, 0]).loss_gap(1, 0) == pytest.approx(whole.loss_gap(0, 2))
    assert whole.accuracy_gap(1, 1) == whole.loss_gap(1, 1) == (0.0, 0.0)
    assert whole.loss_gap(1, 0)[0] == pytest.approx(whole.mean_loss(1) - whole.mean_loss(0))


def test_errors_are_those_of_the_bootstrap() -> None:
    labels, first = draws(150, 0.2, 0)
    kept = torch.rand(labels.shape, generator=torch.Generator().manual_seed(5)) < 0.8
    second = torch.where(kept, first, draws(150, 0.5, 0)[1])  # errs where the first does, and more: the two are paired
    scores = scores_of(labels, first, second)
    generator = torch.Generator().manual_seed(0)
    measured = {
        "miou": (scores.accuracy_error(0), lambda s: s.accuracy(0)),
        "loss": (scores.loss_error(0), lambda s: s.mean_loss(0)),
        "gap": (scores.accuracy_gap(0, 1)[1], lambda s: s.accuracy(0) - s.accuracy(1)),
        "loss gap": (scores.loss_gap(0, 1)[1], lambda s: s.mean_loss(0) - s.mean_loss(1)),
    }
    drawn = []
    for _ in range(600):
        rows = torch.randint(150, (150,), generator=generator)
        drawn.append(SegmentationScores(scores.counts[:, rows], scores.losses[:, rows]))
    for name, (error, of) in measured.items():
        assert error == pytest.approx(float(torch.tensor([of(s) for s in drawn]).double().std()), rel=0.12), name
    unpaired = (scores.accuracy_error(0) ** 2 + scores.accuracy_error(1) ** 2) ** 0.5
    assert scores.accuracy_gap(0, 1)[1] < 0.8 * unpaired


def test_the_influences_are_derivatives() -> None:
    labels, first = draws(12, 0.3, 0)
    scores = scores_of(labels, first)
    weights = torch.ones(12, dtype=torch.float64, requires_grad=True)
    both, union = torch.einsum("i,itk->tk", weights, scores.counts[0].double())
    present = union > 0
    miou = (both[present] / union[present]).mean()
    pixels = labelled_pixels(scores.counts[0]).double()
    loss = (weights * scores.losses[0]).sum() / (weights * pixels).sum()
    for value, error in ((miou, scores.accuracy_error(0)), (loss, scores.loss_error(0))):
        (gradient,) = torch.autograd.grad(value, weights, retain_graph=True)
        assert error == pytest.approx(float(gradient.norm()), rel=1e-9)


def test_variants_are_scored_batch_by_batch_until_it_suffices() -> None:
    labels, first = draws(30, 0.3, 0)
    second = draws(30, 0.9, 1)[1]
    table = torch.stack([first, second], 1)
    batches = list(zip(table.split(7), labels.split(7), strict=True))
    asked: list[int] = []

    def stop(scores: Any) -> bool:
        asked.append(scores.n)
        gap, error = scores.accuracy_gap(0, 1)
        return scores.n > 10 and gap > error

    def variants(batch: Tensor) -> list[Tensor]:
        return [logits(batch[:, 0]), logits(batch[:, 1])]

    scores = score_variants(variants, batches, task=SegmentationTask(K), stop=stop)
    assert asked == [7, 14]
    assert scores.accuracy(1) == pytest.approx(scores_of(labels[:14], second[:14]).accuracy(0))
    every = score_variants(variants, batches, task=SegmentationTask(K), stop=lambda s: False)
    assert every.accuracy_gap(0, 1) == scores_of(labels, first, second).accuracy_gap(0, 1)


def test_images_without_a_labelled_pixel_are_no_ground_for_a_choice() -> None:
    labels, predicted = draws(4, 0.3, 0)
    with pytest.raises(InputError, match="mIoU of variant 0 of 1 is not known on 4 images: nothing in them is"):
        score_variants(lambda x: [logits(x)], [(predicted, torch.full_like(labels, 255))], task=SegmentationTask(K))


def test_processes_put_their_images_together(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, first = draws(12, 0.3, 0)
    quality, loss = SegmentationTask(K).per_image(logits(first[:5]), labels[:5])
    before, after = [(quality[None], loss[None])], []  # a batch of the process before this one; the last has none
    monkeypatch.setattr(measure, "gather_object", lambda mine: [before, *mine, after])

    class Three(Accelerator):
        num_processes = 3

    batches = [(first[5:], labels[5:]), (first[:0], labels[:0])]
    scores = score_variants(lambda x: [logits(x)], batches, Three(cpu=True), task=SegmentationTask(K))
    assert scores.n == 12
    assert scores.accuracy(0) == scores_of(labels, first).accuracy(0)
    assert scores.loss_error(0) == pytest.approx(scores_of(labels, first).loss_error(0))


@pytest.fixture(scope="module")
def scenes() -> MemorySet:
    train = load_data("digit_scenes", train_images=48, holdout=0, image_size=24).train
    assert isinstance(train, MemorySet)
    return train


def searched(scenes: MemorySet, **options: object) -> SearchResult:
    config: dict[str, object] = {"space": "scenes", "T": 2, "epochs": 2, "batch_size": 12, "device": "cpu"}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net: nn.Module = build("small_fcn", num_classes=11, in_chans=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*identity.*")  # so small a search may find nothing
        return search(net, scenes, SearchConfig(**(config | options)), task=SegmentationTask(11))


@pytest.mark.parametrize("selection", ["perturbation", "argmax"])
def test_a_search_through_the_cell(selection: str, scenes: MemorySet) -> None:
    result = searched(scenes, selection=selection)
    assert result.genotype.provenance["metric"] == "mIoU"
    assert 0 < result.state.score["accuracy"] < 1
    losses = [epoch["train_loss"] for epoch in result.state.epochs[1:]]
    assert losses[-1] < losses[0]
    assert result.genotype.chain == () or str(result.genotype) in ("translate_x(0.05)", "rotate(10)")


@pytest.mark.parametrize("selection", ["fixed_weights", "one_shot"])
def test_a_search_that_ranks_chains(selection: str, scenes: MemorySet) -> None:
    result = searched(scenes, selection=selection, epochs=1, candidates=3, first_images=12)
    assert result.genotype.provenance["metric"] == result.ranking.metric == "mIoU"
    entries = result.ranking.entries
    assert all(0 < entry.accuracy < 1 for entry in entries)
    assert len({entry.loss for entry in entries}) == len(entries) > 1
