"""What a test tells beside accuracy, against what can be worked out by hand."""

import base64
import dataclasses
import math

import numpy as np
import pytest
import torch
from few_digits import TESTED
from torch import nn

from image2video.data import MemorySet, load_data
from image2video.errors import InputError
from image2video.reproduce.measures import (
    calibration_error,
    consistency,
    measured,
    packed,
    predictions,
    shifted,
    unpacked,
)
from image2video.training import TrainConfig, evaluate

CPU = torch.device("cpu")
CONFIG = TrainConfig(batch_size=50, device="cpu")


@pytest.fixture(scope="module")
def data():
    return load_data("digits", train_images=100, holdout=0.4, image_size=8)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def test_calibration_error_is_the_gap_of_the_bins():
    confident = torch.tensor([[math.log(9), 0.0]] * 10)  # 0.9 sure of class 0
    right = torch.tensor([0] * 6 + [1] * 4)  # and right in six of ten
    assert calibration_error(confident, right) == pytest.approx(0.3)
    unsure = torch.tensor([[math.log(1.5), 0.0]] * 10)  # 0.6 sure: calibrated
    assert calibration_error(unsure, right) == pytest.approx(0.0, abs=1e-7)
    both = torch.cat([confident, unsure])
    assert calibration_error(both, right.repeat(2)) == pytest.approx(0.15)
    assert calibration_error(both, right.repeat(2), bins=1) == pytest.approx(0.15)
    certain = torch.tensor([[1000.0, 0.0]])
    assert calibration_error(certain, torch.tensor([0])) == 0  # a confidence of 1 has a bin


def test_shifts_are_slices_with_a_reflected_border():
    images = torch.rand(2, 3, 9, 12)
    right_down = shifted(images, 2)
    assert torch.equal(right_down[..., 2:, 2:], images[..., :-2, :-2])
    assert torch.equal(right_down[..., 0, 2:], images[..., 2, :-2])
    left_up = shifted(images, -2)
    assert torch.equal(left_up[..., :-2, :-2], images[..., 2:, 2:])
    assert torch.equal(shifted(images, 0), images)


class Corner(nn.Module):
    """Says whether the pixel at a place is bright."""

    def __init__(self, row, column):
        super().__init__()
        self.row, self.column = row, column

    def forward(self, images):
        bright = (images[:, 0, self.row, self.column] > 0).float()
        return torch.stack([1 - bright, bright], 1)


def test_consistency_is_the_share_whose_class_stays():
    pixels = torch.zeros(4, 1, 16, 16, dtype=torch.uint8)
    pixels[1, 0, 6:11, 6:11] = 255  # stays bright at (8, 8) under shifts of 2, not of 4
    pixels[2] = 255
    pixels[3, 0, 8, 8] = 255  # one pixel: dark under every shift
    images = MemorySet(pixels, torch.tensor([0, 1, 1, 1]), mean=(0.5,), std=(0.5,))
    model = Corner(8, 8)
    answers = predictions(model, images, CONFIG, CPU)[0].argmax(1)
    assert answers.tolist() == [0, 1, 1, 1]
    small = dataclasses.replace(CONFIG, batch_size=3)
    for config in (CONFIG, small):
        assert consistency(model, images, answers, config, CPU) == {"2": 0.75, "4": 0.5}


def test_consistency_looks_at_the_first_images_alone(monkeypatch, data):
    from image2video.reproduce import measures

    model = network()
    answers = predictions(model, data.test, CONFIG, CPU)[0].argmax(1)
    everything = consistency(model, data.test, answers, CONFIG, CPU)
    monkeypatch.setattr(measures, "SHIFTED_IMAGES", 70)
    some = consistency(model, data.test, answers, CONFIG, CPU)
    assert some != everything
    assert all(round(share * 140) == pytest.approx(share * 140) for share in some.values())


@pytest.mark.parametrize("count", [1, 8, 13, 599])
def test_answers_come_back_from_their_bits(count):
    right = torch.rand(count, generator=torch.Generator().manual_seed(count)) < 0.5
    text = packed(right)
    assert len(base64.b64decode(text)) == math.ceil(count / 8)
    assert np.array_equal(unpacked({"right": text, "test_images": count}), right.numpy())


def test_a_measured_network_has_the_metrics_of_a_test(data):
    model = network()
    metrics, record = measured(model, CONFIG, data, CPU)
    plain = evaluate(model, data.test.batches(50))
    assert (metrics.top1, metrics.n) == (plain.top1, plain.n)
    assert metrics.loss == pytest.approx(plain.loss, rel=1e-6)
    assert unpacked(record).mean() == pytest.approx(plain.top1)
    assert record["test_images"] == TESTED
    assert set(record["consistency"]) == {"2", "4"}
    assert model.training


def test_the_temperature_is_that_of_the_held_out_images(data):
    cold = network()
    with torch.no_grad():
        cold[1].weight.mul_(40)
    _, record = measured(cold, CONFIG, data, CPU)
    assert record["temperature"] > 3
    logits, labels = predictions(cold, data.test, CONFIG, CPU)
    scaled = nn.functional.cross_entropy(logits.double() / record["temperature"], labels)
    assert record["scaled_loss"] == pytest.approx(float(scaled))
    assert record["scaled_ece"] < record["ece"]
    other = dataclasses.replace(data, test=data.train)
    assert measured(cold, CONFIG, other, CPU)[1]["temperature"] == record["temperature"]
    with pytest.raises(InputError, match="fitted on held-out images, and there are none"):
        measured(cold, CONFIG, dataclasses.replace(data, holdout=None), CPU)
