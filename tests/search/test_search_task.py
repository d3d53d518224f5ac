"""Tasks: from the outputs of frames to predictions, losses and scores."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from image2video import Genotype, VideoWrap
from image2video.clip.image_to_video import frames_to_clip
from image2video.errors import InputError, InputTypeError
from image2video.search import Cell, SearchSpace
from image2video.search.score.measure import score_variants
from image2video.search.score.network import FrameNetwork, predictions
from image2video.search.score.scores import PairedScores
from image2video.search.score.task import TASKS, ClassificationTask, SegmentationTask, Task, get_task


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def not_asked(maps: Tensor) -> Tensor:
    raise AssertionError("classification unwarps nothing")


def test_classification_averages_the_logits() -> None:
    task = ClassificationTask()
    outputs, labels = noise(6, 4), torch.tensor([2, 0])
    task.check(outputs, 6)
    found = task.predict(outputs, 3, not_asked)
    assert torch.allclose(found, torch.stack([outputs[:3].mean(0), outputs[3:].mean(0)]))
    assert task.predict(outputs.bfloat16(), 3, not_asked).dtype == torch.float32
    assert task.predict(outputs.double(), 3, not_asked).dtype == torch.float64
    assert task.loss(found, labels) == pytest.approx(cross_entropy(found, labels).item())
    right, losses = task.per_image(found, found.argmax(1))
    assert right.tolist() == [1, 1]
    assert torch.allclose(losses, cross_entropy(found, found.argmax(1), reduction="none"))


def test_outputs_of_another_kind_are_refused() -> None:
    with pytest.raises(InputTypeError, match="returned dict; classification needs a classifier"):
        ClassificationTask().check({}, 6)
    with pytest.raises(InputError, match=r"shape \(6, 4, 2, 2\) for 6 frames; classification needs logits \(6, K\)"):
        ClassificationTask().check(noise(6, 4, 2, 2), 6)
    task = SegmentationTask(4)
    task.check(noise(6, 4, 2, 3), 6)
    with pytest.raises(InputTypeError, match="returned OrderedDict; segmentation needs a network"):
        task.check(OrderedDict(), 6)
    for outputs in (noise(6, 4), noise(6, 5, 2, 3), noise(3, 4, 2, 3)):
        with pytest.raises(InputError, match=r"with 4 classes needs logits \(6, 4, h, w\)"):
            task.check(outputs, 6)
    with pytest.raises(InputError, match="at least 2 classes, got num_classes=1"):
        SegmentationTask(1)


def test_segmentation_unwarps_and_takes_the_loss_at_the_size_of_the_labels() -> None:
    task = SegmentationTask(3)
    maps = noise(4, 3, 4, 5)
    found = task.predict(maps.half(), 2, lambda x: frames_to_clip(x, 2).sum(1))
    assert found.dtype == torch.float32
    assert torch.allclose(found, frames_to_clip(maps.half().float(), 2).sum(1))
    labels = torch.randint(3, (2, 8, 10), generator=torch.Generator().manual_seed(1))
    labels[0, :, :4] = 255
    sized = interpolate(found, size=(8, 10), mode="bilinear", align_corners=False)
    assert torch.equal(task.full_size(found, labels), sized)
    assert task.loss(found, labels) == pytest.approx(cross_entropy(sized, labels, ignore_index=255).item(), rel=1e-6)
    _, losses = task.per_image(found, labels)
    assert losses.sum() / (labels != 255).sum() == pytest.approx(task.loss(found, labels).item(), rel=1e-5)
    other = SegmentationTask(3, ignore_index=2)
    shifted = torch.where(labels == 255, 2, labels.clamp_max(1))
    assert other.loss(found, shifted) == pytest.approx(cross_entropy(sized, shifted, ignore_index=2).item(), rel=1e-6)


def test_a_batch_without_a_labelled_pixel_costs_nothing() -> None:
    task = SegmentationTask(3)
    maps = noise(2, 3, 4, 5).requires_grad_()
    loss = task.loss(maps, torch.full((2, 8, 10), 255))
    assert loss.item() == 0
    loss.backward()
    assert maps.grad.abs().max() == 0
    counts, losses = task.per_image(maps.detach(), torch.full((2, 8, 10), 255))
    assert counts.sum() == losses.sum() == 0


def test_labels_that_do_not_fit_are_refused() -> None:
    task = SegmentationTask(3)
    with pytest.raises(InputTypeError, match=r"whole numbers \(int64\), got torch.float32"):
        task.loss(noise(2, 3, 4, 5), torch.zeros(2, 4, 5))
    with pytest.raises(InputError, match=r"got \(2, 3, 4, 5\) and \(2, 1, 4, 5\)"):
        task.loss(noise(2, 3, 4, 5), torch.zeros(2, 1, 4, 5, dtype=torch.long))
    with pytest.raises(InputError, match=r"labels 0 … 3; with 3 classes"):
        task.per_image(noise(1, 3, 1, 2), torch.tensor([[[0, 3]]]))


def test_tasks_by_name() -> None:
    assert [get_task(name, 5).name for name in TASKS] == list(TASKS)
    task = get_task("segmentation", 7)
    assert isinstance(task, SegmentationTask)
    assert task.num_classes == 7
    for count in ("7", 7.0, True):
        with pytest.raises(InputTypeError, match="num_classes must be a whole number"):
            SegmentationTask(count)
    with pytest.raises(InputError, match="unknown task 'depth'; choose one of classification, segmentation"):
        get_task("depth", 3)


class Regression(Task):
    """What a user would write: one number per image."""

    name, metric = "regression", "within 0.5"

    def check(self, outputs: Any, rows: int) -> None:
        if outputs.shape != (rows, 1):
            raise InputError(f"needed ({rows}, 1), got {tuple(outputs.shape)}")

    def predict(self, outputs: Tensor, T: int, unwarp: Any) -> Tensor:
        return frames_to_clip(outputs, T).mean(1)

    def loss(self, predictions: Tensor, labels: Tensor) -> Tensor:
        return (predictions[:, 0] - labels).square().mean()

    def per_image(self, predictions: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        error = (predictions[:, 0] - labels).abs()
        return (error < 0.5).float(), error.square()


def test_a_task_of_ones_own_is_scored() -> None:
    network = FrameNetwork(nn.Sequential(nn.Flatten(), nn.Linear(6, 1)), None)
    found = predictions(network, noise(5, 2, 1, 2, 3), Regression(), not_asked)
    assert found.shape == (5, 1)
    labels = torch.tensor([0.0, 1.0, 2.0])
    batches = [(labels[:2, None], labels[:2]), (labels[2:, None], labels[2:])]
    scores = score_variants(lambda x: [x, x + 0.25, x + 1], batches, task=Regression())
    assert isinstance(scores, PairedScores)
    assert [scores.accuracy(v) for v in range(scores.variants)] == [1, 1, 0]
    assert [scores.mean_loss(v) for v in range(3)] == [0, 0.0625, 1]
    with pytest.raises(InputError, match=r"needed \(10, 1\), got \(10, 6\)"):
        predictions(FrameNetwork(nn.Flatten(), None), noise(5, 2, 1, 2, 3), Regression(), not_asked)


@pytest.mark.parametrize("op", ["translate_x(0.1)", "rotate(7)", "scale(1.2)", "identity"])
@pytest.mark.parametrize("schedule", ["from_zero", "centred"])
def test_a_one_hot_cell_predicts_what_the_wrapped_network_does(op: str, schedule: str) -> None:
    space = SearchSpace("one", ("translate_x(0.1)", "rotate(7)", "scale(1.2)", "identity"), nodes=1, schedule=schedule)
    cell = Cell(space, 3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = nn.Conv2d(1, 4, 3, stride=2, padding=1)
    mixing = torch.zeros(1, 4)
    mixing[0, [str(candidate) for candidate in space.candidates].index(op)] = 1
    images = noise(2, 1, 20, 28)

    def unwarp(maps: Tensor) -> Tensor:
        return cell.unwarped_mean(maps, (20, 28), mixing)

    with torch.no_grad():
        found = predictions(FrameNetwork(backbone, None), cell(images, mixing), SegmentationTask(4), unwarp)
        plain = frames_to_clip(backbone(cell(images, mixing).flatten(0, 1)), 3).mean(1)
        clip = {"genotype": Genotype.parse(op), "T": 3, "schedule": schedule, "padding": "zeros"}
        wrapped = VideoWrap(backbone, "none", input_size=(1, 20, 28), **clip)
        assert torch.allclose(found, wrapped(images), atol=2e-4)
        assert torch.allclose(found, plain, atol=1e-2) == (op == "identity")
