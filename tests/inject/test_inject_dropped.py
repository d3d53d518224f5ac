"""The hooks live as long as their injection: a dropped wrapper leaves a bare backbone, and nothing else does."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import pytest
import torch
from inject_cases import Pair, block_plan, frames, make_plan, randomise, same_snapshot, seeded_net, snapshot
from torch import nn

from image2video.errors import StateError
from image2video.inject.api import inject_
from image2video.wrap.video_wrap import VideoWrap


def make_pair(fusion: str = "gsf", **options: str) -> Pair:
    net = seeded_net(**options)
    pair = Pair(net, inject_(net, block_plan(fusion)))
    randomise(pair.fusion, seed=3, scale=1.0)
    return pair


def hooks_in(net: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())


def test_a_dropped_injection_leaves_the_backbone_as_it_came() -> None:
    net = seeded_net()
    before, x = snapshot(net), frames(2, 3)
    expected = net(x)
    gc.disable()  # at once, not when the collector comes by
    try:
        injection = inject_(net, block_plan("gsf"))
        with pytest.raises(StateError, match="outside of its wrapper"):
            net(x)
        del injection
        assert same_snapshot(before, snapshot(net))
    finally:
        gc.enable()
    assert torch.equal(net(x), expected)


@pytest.mark.parametrize("fusion", ["gsf", "tsm", "conv3d"])
def test_a_dropped_wrapper_leaves_a_backbone_that_works_and_can_be_wrapped_again(fusion: str) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = torch.randn(2, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    expected = net(x)
    plan = make_plan(fusion, ["1"])
    gc.disable()
    try:
        model = VideoWrap(net, fusion, T=3, sites=plan)
        wrapped = model(x)
        del model
        assert hooks_in(net) == 0
        assert torch.equal(net(x), expected)
        again = VideoWrap(net, fusion, T=3, sites=plan)
        torch.testing.assert_close(again(x), wrapped)
    finally:
        gc.enable()


def test_hooks_stay_while_anything_holds_the_injection() -> None:
    pair = make_pair()
    net, x = pair.backbone, frames(2, 3)
    expected = pair(x, 3)
    scope = pair.fusion.frames(3)
    del pair
    gc.collect()
    with scope:
        assert torch.equal(net(x), expected)
    del scope
    assert hooks_in(net) == 0


@pytest.mark.parametrize("mode", ["reentrant", "saved"])
def test_a_graph_that_will_recompute_blocks_holds_the_injection(mode: str) -> None:
    x = frames(2, 3)

    def gradients(checkpointing: str | None, *, dropped: bool) -> list[torch.Tensor]:
        pair = make_pair(checkpointing=checkpointing)
        net, injection = pair.backbone, weakref.ref(pair.fusion)
        total = pair(x, 3).square().sum()
        if dropped:
            del pair
            gc.collect()
        total.backward()
        del total
        assert (injection() is None) == dropped
        return [p.grad for p in net.parameters()]

    right, came = gradients(None, dropped=False), gradients(mode, dropped=True)
    for got, expected in zip(came, right, strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_and_the_original_drop_their_own_hooks(copied: object) -> None:
    pair = make_pair()
    twin = copied(pair)
    x = frames(2, 3)
    expected = twin(x, 3)
    bare = pair.backbone
    del pair
    gc.collect()
    assert hooks_in(bare) == 0
    assert torch.equal(twin(x, 3), expected)
    net = twin.backbone
    del twin
    gc.collect()
    assert hooks_in(net) == 0
    assert torch.equal(net(x), seeded_net()(x))


def test_a_shallow_copy_takes_no_hooks_with_it() -> None:
    pair = make_pair()
    x = frames(2, 3)
    expected = pair(x, 3)
    shallow = copy.copy(pair.fusion)
    del shallow
    gc.collect()
    assert torch.equal(pair(x, 3), expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_of_the_backbone_alone_says_what_to_do_and_can_be_wrapped(copied: object) -> None:
    pair = make_pair()
    net = copied(pair.backbone)
    x = frames(2, 3)
    assert len(pair.backbone.state_dict()) == len(net.state_dict())
    message = r"copied or saved without its wrapper.*wrap this backbone again \(VideoWrap\(backbone\)\)"
    with pair.fusion.frames(3):
        for call in (net, net.forward_features):
            with pytest.raises(StateError, match=message):
                call(x)
    again = inject_(net, block_plan("gsf"))
    again.load_state_dict(pair.fusion.state_dict())
    assert torch.equal(Pair(net, again)(x, 3), pair(x, 3))
    again.remove_()
    assert hooks_in(net) == 0
    assert torch.equal(net(x), seeded_net()(x))


def test_remove_and_a_second_injection_are_not_undone_by_the_first() -> None:
    net = seeded_net()
    first = inject_(net, block_plan("gsf"))
    first.remove_()
    second = inject_(net, block_plan("tsm"))
    count = hooks_in(net)
    del first
    gc.collect()
    assert hooks_in(net) == count
    with second.frames(3):
        net(frames(2, 3))
