"""Settings from a checkpoint, which may hold anything, against those of now."""

import pickle

import pytest
import torch

from image2video.errors import ExistsError, InputError, MissingError
from image2video.runs.atomic import WriteError
from image2video.runs.folders import OutputDirectory
from image2video.runs.settings import built, differences, same
from image2video.search.state.state import SearchState, check_same_search
from image2video.training.checkpoint import check_same
from image2video.training.result import EpochRecord

TENSOR = torch.arange(6).view(2, 3)


@pytest.mark.parametrize("value", [1, 0.5, "a", None, True, [1, [2, "b"]], (1, 2), {"a": {"b": [1]}}])
def test_equal_settings_are_the_same(value):
    assert same(value, value)
    assert differences({"a": value}, {"a": value}) == ""


@pytest.mark.parametrize("value", [TENSOR, [TENSOR], {"b": TENSOR}, torch.tensor(1), float("nan")])
@pytest.mark.parametrize("now", [1, None, [1], {"b": 1}, [1, 2, 3]])
def test_what_is_no_setting_equals_none(value, now):
    assert not same(value, now)
    assert not same(now, value)


def test_differences_are_listed_each_in_few_words():
    listed = differences({"a": TENSOR, "b": "x" * 9999, 3: 1, "d": 1}, {"a": 2, "b": "y", "d": 1.0, "e": [1]})
    assert listed.startswith("a: a tensor (2, 3) then, 2 now; b: 'xxx")
    assert listed.endswith("…" + " then, 'y' now; 3: 1 then, None now; e: None then, [1] now")
    assert len(listed) < 400


@pytest.mark.parametrize("check", [check_same, check_same_search])
def test_a_checkpoint_with_a_tensor_for_a_setting_is_refused(check):
    with pytest.raises(InputError, match=r"lr: a tensor \(2, 3\) then, 0.1 now"):
        check({"lr": TENSOR}, {"lr": 0.1}, "recipe")


def test_the_kind_of_a_run_is_shown_in_few_words(tmp_path):
    (tmp_path / "run.json").write_text('{"kind": "' + "x" * 9999 + '"}')
    for options in ({}, {"resume": True}):
        with pytest.raises(ExistsError) as refused:
            OutputDirectory(tmp_path, "search", **options)
        assert len(str(refused.value)) < 400 + len(str(tmp_path))


RECORD = {"epoch": 0, "train_loss": 1, "holdout_top1": None, "holdout_loss": None, "lr": 0.1}
RECORD |= {"images_per_second": 2.0, "seconds": 3.0}


def test_records_are_built_of_values_of_their_types():
    assert built(EpochRecord, RECORD) == EpochRecord(**RECORD)
    assert built(SearchState, {"steps": [{"step": 1}], "frames": 3}).frames == 3
    wrong = ({"seconds": "3"}, {"epoch": 0.5}, {"epoch": True}, {"lr": TENSOR}, {"holdout_top1": [1]}, {"other": 1})
    for values in wrong:
        with pytest.raises(TypeError):
            built(EpochRecord, RECORD | values)
    for values in ([], None, {"steps": [1]}, {"frames": "3"}, {"magnitudes": {}}, {"chain": 3}, {1: 2}):
        with pytest.raises(TypeError):
            built(SearchState, values)


@pytest.mark.parametrize("kind", [InputError, ExistsError, MissingError, WriteError])
def test_messages_end(kind):
    message = str(kind("a" * 5000 + "b" * 90_000 + "c" * 5000))
    assert message == "a" * 5000 + " … (90000 characters) … " + "c" * 5000
    assert str(kind("short")) == "short"
    assert str(pickle.loads(pickle.dumps(kind("short")))) == "short"
