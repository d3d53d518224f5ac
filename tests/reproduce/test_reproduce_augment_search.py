"""The search for an augmentation policy within a budget of minutes."""

import json
import re
from types import SimpleNamespace

import pytest
import torch
from reproduce_cases import TINY
from search_cases import tiny_network

from image2video.data import load_data
from image2video.data.augment import FAMILIES
from image2video.errors import InputError, StateError
from image2video.reproduce import Cell, Setting, augment_search
from image2video.reproduce.augment_search import OutOfTimeError, find_policy, policies_in_order
from image2video.reproduce.policies import Policy, choose_policy
from image2video.training import make_accelerator

STEPS = 5  # of one training, a second each
GRID = [str(policy) for policy in FAMILIES["uniformaugment"].grid()]
ORDER = [str(policy) for policy in policies_in_order("uniformaugment", seed=3)]
ALONE = SimpleNamespace(num_processes=1, is_main_process=True)


class Trainings:
    """Trainings that take a second of a clock per step; their scores."""

    def __init__(self, scores=(0.2, 0.5, 0.3), stop_at=None):
        self.scores, self.stop_at = dict(zip(GRID, scores, strict=True)), stop_at
        self.now, self.begun, self.done = 1000.0, [], []

    def __call__(self, policy, watched):
        text = str(policy)
        self.begun.append(text)
        for step in range(1, STEPS + 1):
            self.now += 1
            if (len(self.begun), step) == self.stop_at:
                raise KeyboardInterrupt
            watched("train", step, STEPS, loss=1.0)
        self.done.append(text)
        return self.scores[text]


@pytest.fixture
def find(monkeypatch, tmp_path):
    def run(trainings, *, family="uniformaugment", seconds=600, accelerator=ALONE, told=("a config",), **options):
        setting = Setting(**{"data": "scenes", "seed": 3, "augment_minutes": seconds / 60, **options})
        monkeypatch.setattr(augment_search, "time", SimpleNamespace(monotonic=lambda: trainings.now))
        trainings.checked, trainings.shown = [], []
        return find_policy(
            family,
            setting,
            list(told),
            tmp_path,
            accelerator,
            check=lambda policy: trainings.checked.append(str(policy)),
            score=trainings,
            progress=lambda *stage, **figures: trainings.shown.append(stage),
        )

    return run


def records(folder):
    return sorted(folder.glob("uniformaugment-scenes-*.json"))


def test_the_best_policy_is_kept_and_never_searched_for_twice(find, tmp_path):
    trainings = Trainings()
    found = find(trainings)
    assert found == (GRID[1], 3 * STEPS)
    assert trainings.checked == trainings.done == ORDER
    assert sorted(ORDER) == GRID
    assert [stage for stage in trainings.shown if stage[0] == "policies"] == [("policies", n, 3) for n in (1, 2, 3)]
    assert [stage for stage in trainings.shown if stage[0] == "train"] == 3 * [("train", n, 5) for n in range(1, 6)]
    (path,) = records(tmp_path)
    assert json.loads(path.read_text())["scores"] == trainings.scores
    again = Trainings()
    assert find(again) == found
    assert again.begun == []
    assert records(tmp_path) == [path]


def test_other_searches_are_kept_apart(find, tmp_path):
    for number, told in enumerate((["a config"], ["other"]), start=1):
        trainings = Trainings()
        find(trainings, told=told)
        assert len(trainings.done) == 3
        assert len(records(tmp_path)) == number


@pytest.mark.parametrize("scores", [(0.1, 0.4, 0.4), ([0.5, -3.0], [0.5, -2.0], [0.4, -1.0])])
def test_ties_go_to_the_further_numbers_then_to_the_first_text(find, scores):
    assert find(Trainings(scores))[0] == GRID[1]


@pytest.mark.parametrize(("seconds", "finished"), [(4.5, 1), (5, 1), (6, 1), (9, 1), (9.5, 2), (10, 2), (14, 2)])
def test_the_budget_is_kept_to_within_a_step(find, tmp_path, seconds, finished):
    trainings = Trainings()
    best, spent = find(trainings, seconds=seconds)
    assert trainings.done == ORDER[:finished]
    assert seconds <= trainings.now - 1000 < seconds + 1
    assert best == max(ORDER[:finished], key=lambda text: trainings.scores[text])
    assert spent == trainings.now - 1000
    assert set(json.loads(records(tmp_path)[0].read_text())["scores"]) == set(ORDER[:finished])


def test_too_little_time_is_an_error_that_says_so(find):
    message = "no policy of 'uniformaugment' was done within 0.05 minutes; allow for more"
    for _ in range(2):
        with pytest.raises(StateError, match=message):
            find(Trainings(), seconds=3)


def test_a_killed_search_goes_on(find, tmp_path):
    whole = find(Trainings())
    records(tmp_path)[0].unlink()
    with pytest.raises(KeyboardInterrupt):
        find(Trainings(stop_at=(2, 3)))
    (path,) = records(tmp_path)
    record = json.loads(path.read_text())
    assert (record["policy"], record["seconds"], list(record["scores"])) == (None, STEPS, ORDER[:1])
    rest = Trainings()
    assert find(rest) == whole
    assert rest.done == ORDER[1:]


def test_time_counts_over_all_parts(find):
    with pytest.raises(KeyboardInterrupt):
        find(Trainings(stop_at=(2, 1)), seconds=2 * STEPS)
    rest = Trainings()
    find(rest, seconds=2 * STEPS)
    assert rest.done == ORDER[1:2]


def test_what_cannot_be_searched_for_is_refused(find, tmp_path):
    trainings = Trainings((float("nan"),) * 3)
    with pytest.raises(InputError, match="unknown family of augmentations 'mixup'; known: autoaugment, randaugment"):
        find(trainings, family="mixup")
    with pytest.raises(InputError, match="compared on held-out images; set holdout above 0"):
        find(trainings, holdout=0.0)
    assert (trainings.begun, list(tmp_path.iterdir())) == ([], [])
    with pytest.raises(StateError, match=re.escape(f"the held-out score of {ORDER[0]} is nan")):
        find(trainings)


def test_the_clock_of_the_main_process_counts_for_all(find, monkeypatch, tmp_path):
    sent = []
    monkeypatch.setattr(augment_search, "broadcast_object_list", lambda values: sent.append(values[0]) or values)
    main = Trainings()
    both = [SimpleNamespace(num_processes=2, is_main_process=first) for first in (True, False)]
    found = find(main, seconds=8, accelerator=both[0])
    path = records(tmp_path)[0]
    path.unlink()
    monkeypatch.setattr(augment_search, "broadcast_object_list", lambda values: [sent.pop(0)])
    slow = Trainings((0.9, 0.0, 0.9))
    slow.now = 5e6
    assert find(slow, seconds=8, accelerator=both[1]) == found
    assert (slow.begun, slow.done) == (main.begun, main.done)
    assert sent == []
    assert records(tmp_path) == []


def test_a_search_ends_a_training_by_an_exception(find):
    seen = []

    class Careful(Trainings):
        def __call__(self, policy, watched):
            try:
                return super().__call__(policy, watched)
            except OutOfTimeError:
                seen.append(str(policy))
                raise

    find(Careful(), seconds=STEPS + 2)
    assert seen == [ORDER[1]]


# Policies of classification

SETTING = Setting(**TINY, augment_minutes=10)


@pytest.fixture(scope="module")
def data():
    return load_data("digits", train_images=60, holdout=0.25, image_size=8)


@pytest.fixture(scope="module")
def accelerator():
    return make_accelerator("cpu")


def network():
    torch.manual_seed(0)
    return tiny_network(classes=10)


def test_networks_are_trained_with_each_policy_and_the_test_set_is_never_read(data, accelerator, tmp_path):
    class Untouchable:
        num_images = 1

        def batches(self, *args, **kwargs):
            raise AssertionError("the test set was read")

    sealed = type(data)(**{**vars(data), "test": Untouchable()})
    arm = Cell("arm", "an arm", augment="search:uniformaugment")
    found = choose_policy(arm, SETTING, sealed, tmp_path, accelerator, network)
    (path,) = tmp_path.glob("uniformaugment-digits-*.json")
    record = json.loads(path.read_text())
    assert set(record["scores"]) == set(GRID)
    assert all(0 <= top1 <= 1 and minus_loss < 0 for top1, minus_loss in record["scores"].values())
    assert found == Policy(record["policy"], record["seconds"])
    assert found.seconds > 0
    path.unlink()
    assert choose_policy(arm, SETTING, sealed, tmp_path, accelerator, network).text == found.text
    assert json.loads(path.read_text())["scores"] == record["scores"]


def test_stated_policies_are_not_searched_for(data, accelerator, tmp_path):
    for text in (None, "clips:affine5"):
        arm = Cell("arm", "an arm", augment=text)
        assert choose_policy(arm, SETTING, data, tmp_path, accelerator, network) == Policy(text)
    assert not list(tmp_path.iterdir())


def test_labels_of_pixels_are_refused_before_the_first_training(accelerator, tmp_path):
    def build():
        raise AssertionError("a training has begun")

    scenes = load_data("digit_scenes", train_images=50, holdout=0.2)
    arm = Cell("arm", "an arm", augment="search:uniformaugment")
    with pytest.raises(InputError, match="moves images, not labels of pixels"):
        choose_policy(arm, SETTING, scenes, tmp_path, accelerator, build)
