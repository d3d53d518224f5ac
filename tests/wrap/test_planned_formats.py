"""What a plan tells of outputs is remembered from call to call, and follows the plan."""

import copy
import pickle

import torch
from torch import nn

from image2video import VideoWrap
from image2video.wrap.steps import output_formats, planned_formats


def wrapped() -> VideoWrap:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
    return VideoWrap(backbone, fusion="none", T=3, input_size=(3, 6, 8)).eval()


def test_a_second_call_asks_nothing_of_the_plan() -> None:
    model, images = wrapped(), torch.randn(2, 3, 6, 8)
    first = model(images)
    kept = model._of_plan
    assert kept[0] is model.plan
    assert torch.equal(model(images), first)
    assert model._of_plan is kept
    assert output_formats(model.backbone, model.plan, planned=kept[1]) == output_formats(model.backbone, model.plan)


def test_another_plan_has_formats_of_its_own() -> None:
    model, images = wrapped(), torch.randn(2, 3, 6, 8)
    model(images)
    other = copy.deepcopy(model.plan)
    model.fusion._replan_(other)
    model(images)
    assert model._of_plan[0] is other
    assert model._of_plan[1] == planned_formats(other)


def test_it_is_no_part_of_the_state_and_a_wrapper_may_lack_it() -> None:
    model, images = wrapped(), torch.randn(2, 3, 6, 8)
    keys, before = set(model.state_dict()), model(images)
    assert set(model.state_dict()) == keys
    assert torch.equal(pickle.loads(pickle.dumps(model))(images), before)
    del model.__dict__["_of_plan"]  # as in a pickle of an earlier version
    assert torch.equal(model(images), before)
