"""A copy of backbone and injection together uses its own fusions and its own context."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from inject_cases import Pair, block_plan, frames, randomise, seeded_net
from timm.utils import ModelEmaV3

from image2video.errors import StateError
from image2video.inject.api import inject_


def by_pickle(pair: Pair) -> Pair:
    return pickle.loads(pickle.dumps(pair))


def by_torch_save(pair: Pair) -> Pair:
    buffer = io.BytesIO()
    torch.save(pair, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


COPIES: list[Callable[[Pair], Pair]] = [copy.deepcopy, by_pickle, by_torch_save, lambda pair: ModelEmaV3(pair).module]
NAMES = ["deepcopy", "pickle", "torch.save", "ema"]


def make_pair(fusion: str = "gsf") -> Pair:
    net = seeded_net()
    pair = Pair(net, inject_(net, block_plan(fusion))).eval()
    randomise(pair.fusion, seed=3)
    return pair


@pytest.mark.parametrize("make_copy", COPIES, ids=NAMES)
def test_a_copy_computes_the_same_with_fusions_of_its_own(make_copy: Callable[[Pair], Pair]) -> None:
    pair = make_pair()
    x = frames(2, 3)
    before = pair(x, 3)
    twin = make_copy(pair)
    assert torch.equal(twin(x, 3), before)
    randomise(pair.fusion, seed=4)
    changed = pair(x, 3)
    assert not torch.allclose(changed, before)
    assert torch.equal(twin(x, 3), before)
    randomise(twin.fusion, seed=5)
    assert not torch.allclose(twin(x, 3), before)
    assert torch.equal(pair(x, 3), changed)


@pytest.mark.parametrize("make_copy", COPIES, ids=NAMES)
def test_contexts_and_hooks_are_apart(make_copy: Callable[[Pair], Pair]) -> None:
    pair = make_pair()
    twin = make_copy(pair)
    with pair.fusion.frames(3), pytest.raises(StateError, match="outside of its wrapper"):
        twin.backbone(frames(2, 3))
    twin.fusion.remove_()
    assert torch.equal(twin.backbone(frames(2, 3)), seeded_net()(frames(2, 3)))
    pair(frames(2, 3), 3)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in twin.backbone.modules())


def test_a_copy_made_inside_a_scope_starts_outside_of_it() -> None:
    pair = make_pair("tsm")
    with pair.fusion.frames(3):
        twin = copy.deepcopy(pair)
        with pytest.raises(StateError):
            twin.backbone(frames(2, 3))


def test_an_ema_update_reaches_the_fusions_of_the_copy() -> None:
    pair = make_pair()
    ema = ModelEmaV3(pair, decay=0.0)
    randomise(pair, seed=6)
    ema.update(pair)
    x = frames(2, 3)
    torch.testing.assert_close(ema.module(x, 3), pair(x, 3))
    torch.testing.assert_close(ema(x, 3), pair(x, 3))


def test_state_dicts_load_across_copies_and_training_goes_on() -> None:
    pair, twin = make_pair(), make_pair()
    randomise(pair, seed=7)
    twin.load_state_dict(pair.state_dict(), strict=True)
    x = frames(2, 3)
    torch.testing.assert_close(twin(x, 3), pair(x, 3))
    copied = copy.deepcopy(pair).train()
    copied(x, 3).square().sum().backward()
    assert all(p.grad is not None for p in copied.parameters())
    assert all(p.grad is None for p in pair.parameters())
