"""Training: it learns, it records, it resumes to the same bits."""

import json
import re

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from image2video.data import load_data
from image2video.errors import ExistsError, InputError, InputTypeError, StateError
from image2video.training import TrainConfig, TrainResult, evaluate, train
from image2video.training.result import EpochRecord, best_epoch

TINY = {"epochs": 4, "batch_size": 32, "lr": 0.05, "warmup_epochs": 1, "device": "cpu"}


def small_net(seed=0, classes=10):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1), nn.AdaptiveAvgPool2d(3)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(72, classes))


@pytest.fixture(scope="module")
def data():
    return load_data("digits", train_images=300, holdout=0.2, image_size=12)


def without_times(result):
    return [(r.epoch, r.train_loss, r.holdout_top1, r.holdout_loss, r.lr) for r in result.history]


def equal_states(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class KilledError(Exception):
    pass


def killer(at_step):
    def progress(stage, done, total, **figures):
        if stage == "train" and done == at_step:
            raise KilledError

    return progress


def test_training_learns_and_leaves_the_last_weights_in_the_model(data):
    net = small_net()
    result = train(net, data, TrainConfig(**{**TINY, "epochs": 12, "lr": 0.2}))
    assert result.test_last.top1 > 0.6
    assert result.history[-1].train_loss < result.history[0].train_loss - 0.5
    assert evaluate(net, data.test.batches(32)).top1 == pytest.approx(result.test_last.top1, abs=0.01)
    assert result.trained_images == 12 * 240
    assert result.out is None


def test_a_run_leaves_its_files(data, tmp_path):
    calls = []

    def progress(stage, done, total, **figures):
        calls.append((stage, done, total, figures))

    net = small_net()
    config = TrainConfig(**TINY, ema=0.9)
    result = train(net, data, config, out=tmp_path / "run", progress=progress, settings={"model": "small"})
    out = result.out
    assert {path.name for path in out.iterdir()} >= {
        "best.safetensors", "last.safetensors", "checkpoint.pt", "history.json", "result.json", "config.yaml",
        "run.json"
    }  # fmt: skip
    assert list((out / "tensorboard").iterdir())
    assert TrainResult.from_dict(json.loads((out / "result.json").read_text()), out) == result
    assert json.loads((out / "history.json").read_text())[-1]["epoch"] == 3
    settings = yaml.safe_load((out / "config.yaml").read_text())
    assert settings["model"] == "small"
    assert TrainConfig(**{key: settings[key] for key in config.to_dict()}) == config
    assert json.loads((out / "run.json").read_text())["state"] == "done"
    assert equal_states(load_file(out / "last.safetensors"), net.state_dict())
    assert [c[1:3] for c in calls if c[0] == "train"] == [(i, 32) for i in range(1, 33)]
    assert calls[0][3].keys() == {"epoch", "loss", "images_per_second"}
    assert {c[0] for c in calls} == {"train", "holdout", "test"}


def test_best_weights_are_those_of_the_best_held_out_epoch(data, tmp_path):
    net = small_net()
    result = train(net, data, TrainConfig(**{**TINY, "epochs": 6, "lr": 1.0}), out=tmp_path)
    history = result.history
    expected = min(range(6), key=lambda i: (-history[i].holdout_top1, history[i].holdout_loss, i))
    assert result.best_epoch == expected
    net.load_state_dict(load_file(tmp_path / "best.safetensors"))
    again = evaluate(net, data.holdout.batches(32), channels_last=True)
    assert again.top1 == history[expected].holdout_top1
    assert evaluate(net, data.test.batches(32), channels_last=True).top1 == result.test_best.top1


def test_the_best_epoch_rule():
    def epochs(*pairs):
        return [EpochRecord(i, 1.0, top1, loss, 0.1, 1.0, 1.0) for i, (top1, loss) in enumerate(pairs)]

    assert best_epoch(epochs((0.5, 1.0), (0.7, 2.0), (0.6, 0.1))) == 1
    assert best_epoch(epochs((0.7, 1.0), (0.7, 0.9), (0.7, 0.9))) == 1
    assert best_epoch(epochs((None, None), (None, None))) == 1


@pytest.mark.parametrize(
    "extra", [{}, {"ema": 0.9, "optimizer": "adamw", "lr": 0.01, "clip_grad": 1.0}], ids=["sgd", "adamw-ema"]
)
def test_a_killed_run_resumes_to_the_same_bits(data, tmp_path, extra):
    config = TrainConfig(**{**TINY, **extra})
    whole_net = small_net()
    whole = train(whole_net, data, config, out=tmp_path / "whole")
    with pytest.raises(KilledError):
        train(small_net(), data, config, out=tmp_path / "cut", progress=killer(21))  # in the third epoch of 8 steps
    torch.manual_seed(99)
    net = small_net(seed=5)  # what the second process starts from must not matter
    resumed = train(net, data, config, out=tmp_path / "cut", resume=True)
    assert without_times(resumed) == without_times(whole)
    assert equal_states(net.state_dict(), whole_net.state_dict())
    for name in ("best.safetensors", "last.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert (resumed.test_best, resumed.test_last) == (whole.test_best, whole.test_last)


def test_resuming_a_finished_run_trains_nothing(data, tmp_path):
    config = TrainConfig(**TINY)
    first = train(small_net(), data, config, out=tmp_path)
    again = train(small_net(seed=3), data, config, out=tmp_path, resume=True, progress=killer(1))
    assert again == first


def test_a_damaged_checkpoint_falls_back_to_the_one_before(data, tmp_path):
    config = TrainConfig(**TINY)
    whole = train(small_net(), data, config, out=tmp_path)
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="checkpoint.previous.pt"):
        resumed = train(small_net(seed=2), data, config, out=tmp_path, resume=True)
    assert without_times(resumed) == without_times(whole)


def test_a_run_goes_on_from_the_one_before_after_a_killed_first_resume(data, tmp_path):
    """The damaged checkpoint is set aside, and the process that did so was killed before it wrote one of its own."""
    config = TrainConfig(**TINY)
    whole = train(small_net(), data, config, out=tmp_path)
    checkpoint, before = tmp_path / "checkpoint.pt", tmp_path / "checkpoint.previous.pt"
    good = before.read_bytes()
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="checkpoint.previous.pt"), pytest.raises(KilledError):
        train(small_net(seed=2), data, config, out=tmp_path, resume=True, progress=killer(25))  # in epoch 4
    assert not checkpoint.exists()
    with pytest.warns(UserWarning, match=r"no checkpoint at .*checkpoint\.previous\.pt"):
        resumed = train(small_net(seed=3), data, config, out=tmp_path, resume=True)
    assert without_times(resumed) == without_times(whole)
    assert (resumed.test_best, resumed.test_last) == (whole.test_best, whole.test_last)
    assert before.read_bytes() == good


def test_a_run_whose_checkpoints_are_all_damaged_is_not_begun_anew(data, tmp_path):
    config = TrainConfig(**TINY)
    train(small_net(), data, config, out=tmp_path)
    (tmp_path / "checkpoint.pt").rename(tmp_path / "checkpoint.damaged.pt")
    (tmp_path / "checkpoint.previous.pt").unlink()
    with pytest.raises(InputError, match=r"checkpoint\.damaged\.pt is damaged and there is no checkpoint before it"):
        train(small_net(), data, config, out=tmp_path, resume=True)
    train(small_net(), data, TrainConfig(**{**TINY, "epochs": 1}), out=tmp_path, overwrite=True)
    assert not (tmp_path / "checkpoint.damaged.pt").exists()


def test_resuming_with_other_settings_is_refused(data, tmp_path):
    train(small_net(), data, TrainConfig(**TINY), out=tmp_path, settings={"genotype": "none"})
    with pytest.raises(InputError, match=re.escape("another recipe (lr: 0.05 then, 0.01 now)")):
        train(small_net(), data, TrainConfig(**{**TINY, "lr": 0.01}), out=tmp_path, resume=True)
    with pytest.raises(InputError, match="another setting"):
        train(small_net(), data, TrainConfig(**TINY), out=tmp_path, resume=True, settings={"genotype": "rotate(5)"})
    other = load_data("digits", train_images=200, image_size=12)
    with pytest.raises(InputError, match="another data set"):
        train(small_net(), other, TrainConfig(**TINY), out=tmp_path, resume=True, settings={"genotype": "none"})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda saved: saved.pop("history"), "has no 'history'"),
        (lambda saved: saved.update(best=[]), "best must be a dict, got a list"),
        (
            lambda saved: saved["best"].update({"0.bias": True}),
            r"best weights .* must hold a state dict .*, got a bool for '0\.bias'",
        ),
        (lambda saved: saved["best"].pop("0.bias"), r"best weights .*'0\.bias' must have the shape \(8,\), got None"),
        (lambda saved: saved["random"].pop("torch"), "must hold states of random generators"),
        (lambda saved: saved["history"][0].pop("lr"), "holds records of another form"),
        (lambda saved: saved["model"]["0.weight"].mul_(float("nan")), r"the checkpoint holds NaN in 1 of 9 tensors"),
        (lambda saved: saved["model"].update({"0.bias": torch.ones(8).bool()}), r"0\.bias holds torch\.bool"),
        (lambda saved: saved["optimizer"].pop("param_groups"), "is not of this model"),
    ],
)
def test_a_checkpoint_that_was_tampered_with_is_named(data, tmp_path, spoil, message):
    config = TrainConfig(**{**TINY, "epochs": 1, "warmup_epochs": 0})
    train(small_net(), data, config, out=tmp_path)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    spoil(saved)
    torch.save(saved, tmp_path / "checkpoint.pt")
    with pytest.raises((InputError, InputTypeError), match=message):
        train(small_net(), data, config, out=tmp_path, resume=True)


def test_another_runs_folder_is_refused_and_overwritten_on_request(data, tmp_path):
    config = TrainConfig(**{**TINY, "epochs": 1})
    train(small_net(), data, config, out=tmp_path)
    with pytest.raises(ExistsError, match="--overwrite"):
        train(small_net(), data, config, out=tmp_path)
    (tmp_path / "mine.txt").write_text("keep")
    result = train(small_net(), data, TrainConfig(**{**TINY, "epochs": 2}), out=tmp_path, overwrite=True)
    assert len(result.history) == 2
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_what_is_refused_leaves_the_run_that_it_would_overwrite(data, tmp_path):
    config = TrainConfig(**{**TINY, "epochs": 1})
    train(small_net(), data, config, out=tmp_path)
    before = (tmp_path / "best.safetensors").read_bytes()
    with pytest.raises(InputError, match="no trainable parameter"):
        train(nn.Flatten(), data, config, out=tmp_path, overwrite=True)
    assert (tmp_path / "best.safetensors").read_bytes() == before


def test_diverging_training_names_the_step(data, tmp_path):
    class Breaks(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.calls = small_net(), 0

        def forward(self, images):
            self.calls += self.training
            return self.net(images) * (float("nan") if self.calls > 10 else 1)

    with pytest.raises(StateError, match="loss is nan at step 10"):
        train(Breaks(), data, TrainConfig(**TINY), out=tmp_path)
    assert json.loads((tmp_path / "history.json").read_text())[-1]["epoch"] == 0


def test_models_that_do_not_fit_the_data(data):
    with pytest.raises(InputError, match="7 outputs, the data 10 classes"):
        train(small_net(classes=7), data, TrainConfig(**TINY))


def test_without_held_out_images_the_last_epoch_is_kept():
    data = load_data("digits", train_images=100, holdout=0, image_size=12)
    result = train(small_net(), data, TrainConfig(**{**TINY, "epochs": 2}))
    assert result.best_epoch == 1
    assert result.best_holdout_top1 is None
    assert result.test_best == result.test_last


def test_bf16_trains(data):
    result = train(small_net(), data, TrainConfig(**{**TINY, "epochs": 2}, amp="bf16"))
    assert result.history[-1].train_loss < 2.4


@pytest.mark.slow
def test_compiled_training_gives_plain_keys(data, tmp_path):
    net = small_net()
    train(net, data, TrainConfig(**{**TINY, "epochs": 1}, compile=True), out=tmp_path)
    assert load_file(tmp_path / "best.safetensors").keys() == small_net().state_dict().keys()
