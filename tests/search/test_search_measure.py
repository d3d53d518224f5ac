"""Paired scores: accuracies, losses, and the errors of their differences."""

import pytest
import torch
from accelerate import Accelerator

from image2video.errors import InputError
from image2video.search.score.measure import score_variants
from image2video.search.score.scores import PairedScores
from image2video.search.select.edge_records import hurt_most, record


def values(variants: int, n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(variants, n, generator=generator).round(), torch.rand(variants, n, generator=generator) * 3


def test_scores_and_errors_are_those_of_the_images() -> None:
    correct, loss = values(3, 50)
    scores = PairedScores.from_images(correct, loss)
    assert scores.accuracy(1) == pytest.approx(float(correct[1].mean()))
    assert scores.mean_loss(2) == pytest.approx(float(loss[2].mean()))
    for table, gap in ((correct.double(), scores.accuracy_gap), (loss.double(), scores.loss_gap)):
        difference = table[0] - table[2]
        error = float(difference.std(correction=0)) / 50**0.5
        assert gap(0, 2) == pytest.approx((float(difference.mean()), error), abs=1e-9)
        assert gap(1, 1) == (0.0, 0.0)
    assert scores.accuracy_error(0) == pytest.approx(float(correct[0].double().std(correction=0)) / 50**0.5)
    assert scores.loss_error(0) == pytest.approx(float(loss[0].double().std(correction=0)) / 50**0.5)


def test_scores_of_two_sets_add_up() -> None:
    correct, loss = values(4, 60)
    whole = PairedScores.from_images(correct, loss)
    parts = PairedScores.from_images(correct[:, :17], loss[:, :17]) + PairedScores.from_images(
        correct[:, 17:], loss[:, 17:]
    )
    assert parts.n == 60
    assert parts.loss_gap(3, 1) == pytest.approx(whole.loss_gap(3, 1))
    picked = parts.pick([3, 1])
    assert picked.loss_gap(0, 1) == pytest.approx(whole.loss_gap(3, 1))


def test_variants_are_scored_on_the_same_images() -> None:
    labels = torch.tensor([0, 1, 1, 0])
    right = torch.nn.functional.one_hot(labels, 2).float() * 10
    batches = [(right[:3], labels[:3]), (right[3:], labels[3:]), (right[:0], labels[:0])]
    seen: list[int] = []
    scores = score_variants(lambda x: [x, -x], batches, Accelerator(cpu=True), on_batch=seen.append)
    assert scores.n == 4
    assert (scores.accuracy(0), scores.accuracy(1)) == (1.0, 0.0)
    assert seen == [3, 1]


def test_nothing_to_score_and_nan_are_errors() -> None:
    with pytest.raises(InputError, match="no held-out images"):
        score_variants(lambda x: [x], [])
    bad = torch.full((2, 3), float("nan"))
    with pytest.raises(InputError, match="variant 1 of 2 is nan"):
        score_variants(lambda x: [x, x + bad], [(torch.zeros(2, 3), torch.tensor([0, 1]))])


def masked(accuracies: list[float], losses: list[float]) -> PairedScores:
    """Scores of the unmasked cell (perfect) and of every removal, on 100 images."""
    correct = torch.zeros(len(accuracies) + 1, 100)
    for row, accuracy in enumerate([1.0, *accuracies]):
        correct[row, : round(100 * accuracy)] = 1
    return PairedScores.from_images(correct, torch.tensor([0.1, *losses])[:, None].expand(-1, 100))


def test_what_hurts_most_is_kept_and_the_loss_breaks_ties() -> None:
    assert hurt_most(masked([0.9, 0.7, 0.8], [9.0, 1.0, 1.0]), "accuracy") == [1, 2, 0]
    assert hurt_most(masked([0.9, 0.7, 0.7], [9.0, 1.0, 2.0]), "accuracy") == [2, 1, 0]
    assert hurt_most(masked([0.9, 0.7, 0.7], [9.0, 1.0, 2.0]), "loss") == [0, 2, 1]
    assert hurt_most(masked([0.7, 0.9, 0.7], [1.0, 2.0, 1.0]), "accuracy") == [0, 2, 1]


def test_the_record_says_how_decided_an_edge_was() -> None:
    scores = masked([0.9, 0.7, 0.8], [9.0, 1.0, 2.0])
    entry = record(scores, hurt_most(scores, "accuracy"))
    assert entry["chosen"] == 1
    assert entry["masked_accuracy"] == pytest.approx([0.9, 0.7, 0.8])
    assert entry["accuracy"] == 1
    assert entry["gap"] == pytest.approx(0.1)
    assert entry["gap_error"] == pytest.approx((0.1 * 0.9 / 100) ** 0.5)
    assert entry["loss_gap"] == pytest.approx(-1.0)
