"""Settings from a checkpoint, which may hold anything, against those of now."""

import pytest
import torch

from image2video.errors import ExistsError, InputError
from image2video.runs.folders import OutputDirectory
from image2video.runs.settings import differences, same
from image2video.search.state.state import check_same_search
from image2video.training.checkpoint import check_same

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
