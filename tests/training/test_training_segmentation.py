"""Networks that label pixels: their figures, a training run, and the command line."""

import dataclasses
import json

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, interpolate, one_hot

from image2video import VideoWrap
from image2video.cli import main
from image2video.data import load_data
from image2video.errors import InputError
from image2video.integrations.timm_backbones import SEGMENTORS, build
from image2video.training import EpochRecord, Metrics, TrainConfig, evaluate, train
from image2video.training.result import best_epoch

LABELS = torch.tensor([[[0, 0, 1], [2, 255, 1]], [[0, 0, 0], [0, 0, 2]]])


class Says(nn.Module):
    """Returns the maps that the images hold."""

    def forward(self, images):
        return images


def maps_of(predicted, classes=4):
    return 5.0 * one_hot(predicted, classes).movedim(-1, 1).float()


def test_metrics_of_pixels_by_hand():
    predicted = torch.tensor([[[0, 1, 1], [2, 2, 1]], [[0, 0, 0], [0, 0, 0]]])
    maps = maps_of(predicted)
    batches = [(maps[:1], LABELS[:1]), (maps[1:], LABELS[1:])]
    metrics = evaluate(Says(), batches)
    # Class 0: 6 of 8; class 1: 2 of 3; class 2: 1 of 2; class 3 is nowhere. One pixel of 12 does not count.
    assert metrics.miou == pytest.approx((6 / 8 + 2 / 3 + 1 / 2) / 3)
    assert metrics.top1 == pytest.approx(9 / 11)
    assert metrics.loss == pytest.approx(cross_entropy(maps, LABELS, ignore_index=255).item(), rel=1e-6)
    assert metrics.n == 2
    assert (metrics.metric, metrics.score) == ("mIoU", metrics.miou)
    assert metrics.to_dict() == {"top1": metrics.top1, "loss": metrics.loss, "n": 2, "miou": metrics.miou}
    assert Metrics(0.5, 1.0, 3).to_dict() == {"top1": 0.5, "loss": 1.0, "n": 3}


def test_maps_of_another_size_are_brought_to_the_labels():
    small = torch.randn(2, 4, 1, 2, generator=torch.Generator().manual_seed(0))
    sized = interpolate(small, size=(2, 3), mode="bilinear", align_corners=False)
    assert evaluate(Says(), [(small, LABELS)]) == evaluate(Says(), [(sized, LABELS)])


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"returned \(2, 4\) for 2 images with labels \(2, 2, 3\); needed: \(B, clas"):
        evaluate(Says(), [(torch.zeros(2, 4), LABELS)])
    with pytest.raises(InputError, match=r"labels 0 … 2; with 2 classes they must be 0 … 1, or 255"):
        evaluate(Says(), [(torch.zeros(2, 2, 2, 3), LABELS)])
    with pytest.raises(InputError, match="no pixel of the 2 images is labelled"):
        evaluate(Says(), [(torch.zeros(2, 4, 2, 3), torch.full_like(LABELS, 255))])


def test_the_epoch_is_chosen_by_miou():
    def record(epoch, top1, miou):
        return EpochRecord(epoch, 1.0, top1, 1.0, 0.1, 1.0, 1.0, miou)

    assert best_epoch([record(0, 0.9, 0.3), record(1, 0.8, 0.5), record(2, 0.85, 0.4)]) == 1
    assert best_epoch([record(0, 0.9, None), record(1, 0.8, None)]) == 0


@pytest.mark.parametrize("name", SEGMENTORS)
def test_a_segmentor_labels_pixels_and_can_be_wrapped(name):
    net = build(name, num_classes=5, in_chans=2).eval()
    images = torch.rand(2, 2, 20, 26, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        bare = net(images)
        assert bare.shape == (2, 5, 10, 13)
        model = VideoWrap(net, genotype="identity", T=3, input_size=(2, 20, 26)).eval()
        assert [site.name for site in model.plan.sites] == ["layer1.0.conv2", "layer2.0.conv2", "layer3.0.conv2"]
        assert torch.allclose(model(images), bare, atol=1e-5)
        moved = VideoWrap(model.unwrap(), fusion="none", genotype="translate_x(0.1)", T=2, input_size=(2, 20, 26))
        assert moved.eval()(images).shape == bare.shape


@pytest.mark.parametrize("wrapped", [False, True])
def test_training_a_segmentor(wrapped):
    data = load_data("digit_scenes", train_images=120, holdout=0.2, image_size=24)
    data = dataclasses.replace(data, test=data.test.take(100, seed=0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = build("small_fcn", num_classes=11, in_chans=1)
    if wrapped:
        net = VideoWrap(net, T=2, input_size=data.input_size)
    result = train(net, data, TrainConfig(epochs=5, batch_size=16, device="cpu"))
    losses = [record.train_loss for record in result.history]
    assert losses[-1] < 0.7 * losses[0]
    assert result.history[result.best_epoch].holdout_miou == max(r.holdout_miou for r in result.history)
    assert result.test_last.metric == "mIoU"
    assert result.test_last.miou > 1.2 * (0.8 / 11)  # more than the background everywhere
    assert result.history[-1].figures()["holdout_miou"] == result.history[-1].holdout_miou


def test_a_wrong_number_of_classes_is_named():
    data = load_data("digit_scenes", train_images=20, image_size=24)
    with pytest.raises(InputError, match="the model has 10 outputs, the data 11 classes"):
        train(build("small_fcn", num_classes=10, in_chans=1), data, TrainConfig(epochs=1, device="cpu"))
    with pytest.raises(InputError, match=r"labels \(9, 24, 24\); needed: \(B, classes, h, w\)"):
        train(build("cifar_resnet8", num_classes=11, in_chans=1), data, TrainConfig(epochs=1, batch_size=9))


def test_the_command_line_trains_and_evaluates(tmp_path, capsys):
    tiny = ["--data", "digit_scenes", "--train-images", "20", "--image-size", "24", "--model", "small_fcn"]
    out = tmp_path / "run"
    argv = ["train", *tiny, "--genotype", "rotate(5)", "--frames", "2", "--epochs", "1", "--device", "cpu"]
    assert main([*argv, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "mIoU %" in printed
    assert "pixels right %" in printed
    result = json.loads((out / "result.json").read_text())
    assert 0 < result["test_best"]["miou"] < 1
    assert result["history"][0]["holdout_miou"] is not None
    weights = str(out / "pretrained")
    assert main(["evaluate", *tiny, "--weights", weights, "--json", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["miou"] == pytest.approx(result["test_best"]["miou"])
