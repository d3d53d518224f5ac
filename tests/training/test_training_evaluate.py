"""Accuracy, loss and cost, against what can be computed by hand."""

import math

import pytest
import torch
from torch import nn

from image2video.data import load_data
from image2video.errors import InputError
from image2video.training import evaluate, measure_cost


class Lookup(nn.Module):
    """Scores that the images spell out."""

    def forward(self, images):
        return images.flatten(1)


def test_metrics_are_the_mean_over_images_not_batches():
    scores = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    labels = torch.tensor([0, 0, 0])
    batches = [(scores[:1].view(1, 1, 1, 2), labels[:1]), (scores[1:].view(2, 1, 1, 2), labels[1:])]
    metrics = evaluate(Lookup(), batches)
    assert metrics.n == 3
    assert metrics.top1 == pytest.approx(2 / 3)
    expected = sum(math.log(1 + math.exp(wrong)) for wrong in (-2.0, 1.0, -3.0)) / 3
    assert metrics.loss == pytest.approx(expected, rel=1e-6)


def test_evaluation_does_not_touch_the_model():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.Flatten(), nn.Linear(2 * 14 * 14, 10))
    model[1].eval()  # a frozen norm stays frozen
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batches = load_data("digits", train_images=50, holdout=0).train.batches(20)
    first = evaluate(model, batches)
    assert first == evaluate(model, batches)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert model[2].training
    assert not model[1].training


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Identity(), r"returned \(4, 1, 2, 3\) for 4 images"),
        (nn.Flatten(0), r"returned \(24,\)"),
    ],
)
def test_outputs_that_are_no_class_scores(model, message):
    with pytest.raises(InputError, match=message):
        evaluate(model, [(torch.zeros(4, 1, 2, 3), torch.zeros(4, dtype=torch.int64))])


def test_no_batches_is_an_error():
    with pytest.raises(InputError, match="must hold an image"):
        evaluate(nn.Flatten(), [])


class Frames(nn.Module):
    """Every image is seen three times."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, images):
        return self.net(images.repeat_interleave(3, 0)).unflatten(0, (-1, 3)).mean(1)


def test_cost_counts_per_image_and_all_frames():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )
    macs = 8 * 3 * 9 * 6 * 10 + 8 * 5
    for batch in (1, 4):
        assert measure_cost(net, (3, 6, 10), batch, repeats=1).macs_per_image == macs
        # The convolution's output and that of the ReLU are there together; a frame's are a third of a clip's.
        at_once = 2 * 8 * 6 * 10 * 4 / 2**20
        assert measure_cost(net, (3, 6, 10), batch, repeats=1).peak_mib_per_image == pytest.approx(at_once, rel=1e-3)
    cost = measure_cost(Frames(net), (3, 6, 10), 2, repeats=3)
    assert cost.peak_mib_per_image >= 3 * at_once
    assert cost.macs_per_image == 3 * macs
    assert cost.params == 8 * 27 + 8 + 45
    assert cost.ms_per_image > 0
    assert net.training
    with pytest.raises(InputError, match="at least 1"):
        measure_cost(net, (3, 6, 10), 0)


@pytest.mark.parametrize("labels", [torch.tensor([0, 3]), torch.tensor([-100, 1]), torch.full((2, 4, 4), 3)])
def test_labels_beyond_the_classes_are_refused(labels):
    """The loss would end in an error of torch's own; on a GPU in an abort of the process."""
    net = nn.Conv2d(1, 3, 1) if labels.ndim == 3 else nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with pytest.raises(InputError, match=r"have labels -?\d+ … \d; with 3 classes they must be 0 … 2"):
        evaluate(net, [(torch.zeros(2, 1, 4, 4), labels)])
