"""Searches over policies within a budget of minutes."""

import json
import re

import pytest
from search_cases import tiny_network

from image2video import VideoWrap
from image2video.cli.app import main
from image2video.data import AugmentedFrames, load_data
from image2video.errors import ExistsError, InputError, StateError
from image2video.reproduce.augment_result import PolicyScore, PolicySearchResult, ranked
from image2video.reproduce.augment_search import search_augmentation
from image2video.training import Metrics, TrainConfig

CONFIG = TrainConfig(epochs=2, batch_size=16, device="cpu", lr=0.05)
STEPS = 2 * 3  # of one training: 40 of 50 images, 2 epochs
GRID = ("uniformaugment:ops=1", "uniformaugment:ops=2", "uniformaugment:ops=3")


class Clock:
    """Seconds that pass with every training step alone."""

    def __init__(self, seconds_per_step=1.0):
        self.now, self.step, self.stages = 100.0, seconds_per_step, []

    def __call__(self):
        return self.now

    def progress(self, stage, done, total, **figures):
        self.stages.append((stage, done, total))
        self.now += self.step if stage == "train" else 0.0


@pytest.fixture(scope="module")
def data():
    return load_data("digits", train_images=50, holdout=0.2)


def build(policy):
    return tiny_network(classes=10)


def search(data, clock=None, *, minutes=10.0, family="uniformaugment", model=build, config=CONFIG, **options):
    clock = clock or Clock()
    return search_augmentation(
        family, data, model, config, minutes=minutes, clock=clock, progress=clock.progress, **options
    )


def test_all_policies_are_tried_where_there_is_time(data):
    clock = Clock()
    result = search(data, clock)
    assert {score.policy for score in result.scores} == set(GRID)
    assert result.not_reached == ()
    assert result.reference is not None
    assert result.reference.policy == "none"
    assert result.best == result.scores[0].policy
    assert [score.accuracy for score in result.scores] == sorted((s.accuracy for s in result.scores), reverse=True)
    assert all(score.images == 10 and score.seconds == STEPS for score in result.scores)
    assert result.seconds == 4 * STEPS
    assert [stage for stage in clock.stages if stage[0] == "policies"] == [("policies", n, 4) for n in (1, 2, 3, 4)]


def test_the_test_set_is_never_read(data):
    class Untouchable:
        num_images = 1

        def batches(self, *args, **kwargs):
            raise AssertionError("the test set was read")

    sealed = type(data)(**{**vars(data), "test": Untouchable()})
    assert len(search(sealed, grid=GRID[:1], reference=False).scores) == 1


def test_scores_do_not_depend_on_the_order_or_the_company(data):
    first = {score.policy: score.accuracy for score in search(data).scores}
    for seed in (1, 2):
        alone = search(data, grid=GRID[1:2], reference=False, seed=seed)
        assert alone.scores[0].accuracy == first[GRID[1]]
    orders = set()
    for seed in range(4):
        result = search(data, seed=seed, minutes=(STEPS + 0.5) / 60, reference=False)
        orders.add(result.best)
    assert len(orders) > 1  # the budget lets one through: which one, the seed says


@pytest.mark.parametrize(("steps", "finished"), [(STEPS, 1), (STEPS + 1, 1), (2 * STEPS - 1, 1), (2 * STEPS, 2)])
def test_a_training_that_is_cut_does_not_count(data, steps, finished):
    clock = Clock()
    result = search(data, clock, minutes=steps / 60, reference=False)
    assert len(result.scores) == finished
    assert len(result.not_reached) == 3 - finished
    assert clock.now - 100 == steps  # stopped within one step
    assert result.seconds == steps


def test_a_training_that_is_done_is_scored_after_the_deadline(data):
    clock = Clock()
    result = search(data, clock, minutes=(STEPS - 0.5) / 60, reference=False)
    assert len(result.scores) == 1
    assert [stage for stage in clock.stages if stage[0] == "holdout"]


def test_too_little_time_is_an_error_that_says_so(data):
    message = "none of the 3 policies of 'uniformaugment' was done within 0.05 minutes"
    with pytest.raises(StateError, match=re.escape(message)):
        search(data, minutes=0.05)


def test_the_network_sees_the_policy(data):
    seen = []

    def model(policy):
        seen.append(str(policy))
        return tiny_network(classes=10)

    search(data, model=model, family="randaugment", grid=("randaugment:ops=1",))
    assert seen == ["None", "randaugment:ops=1,magnitude=9"]


def test_policies_can_make_the_frames(data):
    def model(policy):
        frames = AugmentedFrames(policy, T=2, mean=data.mean, std=data.std)
        return VideoWrap(tiny_network(classes=10), fusion="none", frames=frames)

    result = search(data, model=model, grid=GRID[:2], augment_images=False)
    assert result.reference is None
    assert len(result.scores) == 2
    assert result.gain(result.scores[0]) is None


def test_a_resumed_search_keeps_what_is_done(data, tmp_path):
    whole = search(data)
    out = tmp_path / "run"
    part = search(data, minutes=(2 * STEPS + 2) / 60, out=out)
    assert (len(part.scores), part.seconds) == (1, 2 * STEPS + 2)
    saved = json.loads((out / "augment.json").read_text())
    assert PolicySearchResult.from_dict(saved, out) == part
    with pytest.raises(ExistsError):
        search(data, out=out)
    clock = Clock()
    again = search(data, clock, out=out, resume=True)
    assert {s.policy: s.accuracy for s in again.scores} == {s.policy: s.accuracy for s in whole.scores}
    assert sum(stage == "train" for stage, *_ in clock.stages) == 2 * STEPS
    assert again.seconds == 4 * STEPS + 2  # the training that was cut counts as time
    idle = Clock()
    assert search(data, idle, out=out, resume=True) == again
    assert idle.stages == []
    with pytest.raises(InputError, match="cannot resume with another augmentation search"):
        search(data, out=out, resume=True, seed=1)
    assert search(data, out=out, overwrite=True, grid=GRID[:1], reference=False).not_reached == ()


def test_a_killed_search_is_resumed(data, tmp_path):
    clock = Clock()

    def kill(stage, done, total, **figures):
        clock.progress(stage, done, total)
        if sum(name == "train" for name, *_ in clock.stages) == 2 * STEPS + 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search_augmentation(
            "uniformaugment", data, build, CONFIG, minutes=10, clock=clock, progress=kill, out=tmp_path / "run"
        )
    resumed, whole = search(data, out=tmp_path / "run", resume=True), search(data)
    assert resumed.scores == whole.scores
    assert resumed.reference == whole.reference


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": "mixup"}, "unknown family of augmentations 'mixup'; known: autoaugment, randaugment"),
        ({"grid": ()}, "the grid is empty"),
        ({"grid": ("randaugment",)}, "the grid holds randaugment:ops=2,magnitude=9, which is not of the family"),
        ({"grid": ("uniformaugment", "uniformaugment:ops=2")}, "uniformaugment:ops=2 more than once"),
        ({"minutes": 0}, "minutes must be a number above 0, got 0"),
        ({"minutes": float("nan")}, "minutes must be a number above 0, got nan"),
        ({"config": TrainConfig(crop_flip=False)}, "crop_flip=False trains on the images as they are"),
    ],
)
def test_what_cannot_be_is_refused(data, options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        search(data, **options)


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("digit_scenes", {}, "moves images, not labels of pixels"),
        ("digits", {"family": "clips", "grid": ("clips:nowhere",)}, "unknown search space 'nowhere'"),
    ],
)
def test_policies_that_do_not_fit_are_refused_before_the_first_training(spec, options, message):
    clock = Clock()
    with pytest.raises(InputError, match=re.escape(message)):
        search(load_data(spec, train_images=50, holdout=0.2), clock, **options)
    assert clock.stages == []


def test_without_held_out_images_nothing_is_compared():
    with pytest.raises(InputError, match="policies are compared on held-out images"):
        search(load_data("digits", train_images=50, holdout=0))


def test_errors_are_those_of_the_images():
    score = PolicyScore.of("randaugment", Metrics(0.8, 0.5, 100), 3.0)
    assert score.error == pytest.approx(0.04)
    reference = PolicyScore.of("none", Metrics(0.5, 0.7, 100), 3.0)
    result = PolicySearchResult("randaugment", (score,), reference, (), 1.0, 6.0)
    assert result.gain(score) == pytest.approx((0.3, (0.04**2 + 0.05**2) ** 0.5))
    worse = PolicyScore.of("a", Metrics(0.8, 0.6, 100), 3.0)
    assert ranked([worse, score]) == (score, worse)


def test_the_command_searches_and_says_how_to_train(tmp_path, capsys):
    common = [
        "--model",
        "cifar_resnet8",
        "--train-images",
        "40",
        "--holdout",
        "0.5",
        "--device",
        "cpu",
        "--epochs",
        "1",
    ]
    command = ["augment", "--family", "trivialaugment", "--max-minutes", "5", *common]
    assert main([*command, "--out", str(tmp_path / "a")]) == 0
    shown = capsys.readouterr().out
    best = json.loads((tmp_path / "a" / "augment.json").read_text())["best"]
    assert f'best: image2video train --augment "{best}"' in shown
    assert "2 of 2 policies tried" in shown
    assert main(["train", "--augment", best, "--genotype", "none", *common, "--out", str(tmp_path / "t")]) == 0
    frames = ["--use", "frames", "--frames", "2", "--grid", '["trivialaugment"]']
    assert main([*command, *frames, "--out", str(tmp_path / "f")]) == 0
    assert 'train --frame-source "trivialaugment:wide=true"' in capsys.readouterr().out
    assert main([*command, "--fusion", "tsm", "--out", str(tmp_path / "b")]) == 2
    assert "--use frames" in capsys.readouterr().err


def test_drawn_frames_can_be_trained_from_the_command_line(tmp_path, capsys):
    common = ["--train-images", "40", "--device", "cpu", "--epochs", "1", "--out", str(tmp_path / "t")]
    assert main(["train", "--frame-source", "clips:affine5,frames=2", *common]) == 0
    config = json.loads((tmp_path / "t" / "pretrained" / "config.json").read_text())
    assert (config["frames"]["kind"], config["frames"]["T"], config["genotype"]) == ("random_clips", 2, None)
    assert main(["evaluate", "--weights", str(tmp_path / "t" / "pretrained"), "--device", "cpu"]) == 0
    assert main(["train", "--frame-source", "randaugment", "--genotype", "identity", *common, "--overwrite"]) == 2
    assert "--frame-source makes the frames itself; leave out --genotype" in capsys.readouterr().err
