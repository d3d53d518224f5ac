"""Learning rates, parameter groups, averaged weights."""

import math
import re
from itertools import pairwise

import pytest
import torch
from torch import nn

from image2video.errors import InputError, InputTypeError
from image2video.training import TrainConfig, lr_factor, make_optimizer
from image2video.training.ema import Ema
from image2video.training.recipe import autocast_dtype
from image2video.wrap.video_wrap import VideoWrap


def test_learning_rate_warms_up_and_follows_a_cosine():
    factors = [lr_factor(step, 100, 10, 0.1) for step in range(100)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert factors[10] == 1
    assert factors[55] == pytest.approx(0.1 + 0.9 * 0.5)  # half of the way down
    assert all(a > b for a, b in pairwise(factors[10:]))
    assert factors[99] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 89 / 90)))
    assert lr_factor(0, 5, 0, 0.0) == 1
    assert [lr_factor(i, 2, 8, 0.0) for i in (0, 1)] == [0.5, 1]  # a warm-up longer than the run ends with it


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
        self.position = nn.Parameter(torch.zeros(1, 2, 3))
        self.frozen = nn.Parameter(torch.zeros(2, 2), requires_grad=False)

    def no_weight_decay(self):
        return {"position"}


def test_norms_biases_and_named_parameters_take_no_decay():
    model = Named()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = make_optimizer(model, TrainConfig(weight_decay=0.3, lr=0.2)).param_groups
    decayed = {names[id(p)] for g in groups if g["weight_decay"] == 0.3 for p in g["params"]}
    spared = {names[id(p)] for g in groups if g["weight_decay"] == 0 for p in g["params"]}
    assert decayed == {"net.0.weight", "net.2.weight"}
    assert decayed | spared == {name for name, p in model.named_parameters() if p.requires_grad}
    assert {g["peak_lr"] for g in groups} == {0.2}


def test_fusion_parameters_learn_at_their_own_rate():
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
    model = VideoWrap(backbone, "gsf", T=2, input_size=(3, 8, 8))
    groups = make_optimizer(model, TrainConfig(lr=0.2, fusion_lr_mult=5.0)).param_groups
    rates = {id(p): g["peak_lr"] for g in groups for p in g["params"]}
    assert {rates[id(p)] for p in model.fusion.parameters()} == {1.0}
    assert {rates[id(p)] for p in model.backbone.parameters()} == {0.2}


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_optimizers(name, kind):
    optimizer = make_optimizer(Named(), TrainConfig(optimizer=name))
    assert type(optimizer) is kind
    assert {g["weight_decay"] for g in optimizer.param_groups} == {0.0, {"sgd": 5e-4, "adamw": 5e-2}[name]}
    if name == "sgd":
        assert all(g["nesterov"] for g in optimizer.param_groups)


def test_nothing_to_train_is_an_error():
    with pytest.raises(InputError, match="no trainable parameter"):
        make_optimizer(nn.Flatten(), TrainConfig())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, "epochs=0: it must be at least 1"),
        ("batch_size", 0, "batch_size=0"),
        ("optimizer", "adam", "optimizer='adam': it must be one of sgd, adamw"),
        ("lr", float("nan"), "lr=nan"),
        ("weight_decay", -1.0, "weight_decay=-1.0"),
        ("ema", 1.0, "from 0 to 1 (excluded)"),
        ("label_smoothing", 1.5, "from 0 to 1"),
        ("amp", "fp8", "auto, no, bf16"),
        ("seed", -1, "seed=-1"),
    ],
)
def test_values_out_of_range_are_refused(field, value, message):
    with pytest.raises(InputError, match=re.escape(message)):
        TrainConfig(**{field: value})


@pytest.mark.parametrize(("field", "value"), [("epochs", 1.5), ("batch_size", 32.0), ("seed", True)])
def test_counts_are_whole_numbers(field, value):
    with pytest.raises(InputTypeError, match=f"{field}={value}: it must be a whole number"):
        TrainConfig(**{field: value})


def test_average_follows_the_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    ema = Ema(model, 0.9)
    before = ema.module[0].weight.clone()
    with torch.no_grad():
        model[0].weight += 1
        model[1].running_mean += 2
        model[1].num_batches_tracked += 3
    ema.update(model)  # the first update has decay 1/10
    torch.testing.assert_close(ema.module[0].weight, before + 0.9)
    torch.testing.assert_close(ema.module[1].running_mean, torch.full((2,), 1.8))
    assert int(ema.module[1].num_batches_tracked) == 3
    for _ in range(200):
        ema.update(model)
    torch.testing.assert_close(ema.module[0].weight, model[0].weight)
    assert not any(p.requires_grad for p in ema.module.parameters())


def test_mixed_precision_is_only_automatic_on_a_gpu():
    cpu = torch.device("cpu")
    assert autocast_dtype(TrainConfig(), cpu) is None
    assert autocast_dtype(TrainConfig(amp="bf16"), cpu) is torch.bfloat16
    assert autocast_dtype(TrainConfig(amp="no"), cpu) is None


@pytest.mark.parametrize("value", [None, "0.1", True, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["lr", "momentum", "label_smoothing", "warmup_epochs", "clip_grad"])
def test_what_is_no_finite_number_is_refused(name, value):
    if name == "lr" and value is None:
        assert TrainConfig(lr=None).peak_lr > 0  # its default
        return
    with pytest.raises((InputError, InputTypeError), match=f"{name}="):
        TrainConfig(**{name: value})
