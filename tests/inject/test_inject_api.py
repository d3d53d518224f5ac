"""Injecting fusions into a backbone: what they do, what stays untouched, and how they come out again."""

from __future__ import annotations

import pytest
import torch
from inject_cases import (
    Net,
    block_plan,
    frames,
    injected,
    make_plan,
    run,
    same_snapshot,
    seeded_net,
    snapshot,
)
from torch import Tensor, nn

from image2video.errors import InputError, StateError, UnsupportedError
from image2video.fusion import GSF, NoFusionConfig, TSMConfig
from image2video.inject.api import inject_
from image2video.inject.plan import Plan

FUSIONS = ["tsm", "gsm", "gsf", "conv3d"]


@pytest.mark.parametrize("fusion", FUSIONS)
def test_frames_mix_within_a_clip_and_clips_do_not_leak(fusion: str) -> None:
    net, injection = injected(fusion)
    net.eval()
    injection.eval()
    x = frames(2, 3)
    before = run(net, injection, x, 3)
    assert not torch.allclose(before, seeded_net()(x))
    changed = x.clone()
    changed[4] += 1.0  # frame 1 of image 1
    after = run(net, injection, changed, 3)
    assert torch.equal(after[:3], before[:3])
    assert all(not torch.allclose(after[row], before[row]) for row in (3, 4, 5))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_switched_off_and_at_one_frame_it_is_the_bare_backbone(fusion: str) -> None:
    net, injection = injected(fusion, residual=False)
    x = frames(2, 3)
    bare = seeded_net()(x)
    assert torch.equal(run(net, injection, x, 1), bare)
    assert torch.equal(run(net, injection, x, 3, enabled=False), bare)
    assert not torch.equal(run(net, injection, x, 3), bare)


@pytest.mark.parametrize("fusion", ["gsm", "gsf", "conv3d"])
def test_a_fresh_residual_fusion_is_the_bare_backbone(fusion: str) -> None:
    net = seeded_net()
    injection = inject_(net, block_plan(fusion))
    x = frames(2, 3)
    torch.testing.assert_close(run(net, injection, x, 3), seeded_net()(x))


def test_the_backbone_keeps_its_keys_and_the_injection_has_the_paths_of_the_sites() -> None:
    net = seeded_net()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    parameters = [(name, id(p)) for name, p in net.named_parameters()]
    injection = inject_(net, block_plan("gsf"))
    after = net.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert [(name, id(p)) for name, p in net.named_parameters()] == parameters
    keys = {f"blocks.{i}.conv2.gsf.{key}" for i in range(3) for key in GSF(8, residual=True).state_dict()}
    assert set(injection.state_dict()) == keys
    assert "blocks.1.conv2.gsf.bn.weight" in keys
    assert not set(map(id, injection.parameters())) & set(map(id, net.parameters()))


def test_device_dtype_and_mode_come_from_the_backbone() -> None:
    net = Net().half().eval()
    injection = inject_(net, block_plan("gsf"))
    assert {p.dtype for p in injection.parameters()} == {torch.float16}
    assert not any(module.training for module in injection.get_submodule("blocks").modules() if isinstance(module, GSF))
    meta = Net().to("meta")
    assert {p.device.type for p in inject_(meta, block_plan("gsf")).parameters()} == {"meta"}


def test_names_without_weight_decay_are_parameters_of_the_injection() -> None:
    _, injection = injected("gsf")
    names = injection.no_weight_decay()
    parameters = dict(injection.named_parameters())
    assert names < set(parameters)
    assert {"blocks.0.conv2.gsf.bn.weight", "blocks.2.conv2.gsf.scale"} <= names
    assert all(parameters[name].ndim <= 1 for name in names)


def test_removed_it_leaves_the_backbone_bit_for_bit() -> None:
    net = seeded_net().train()
    net.blocks[1].conv2.register_forward_hook(lambda module, args, output: None)
    before = snapshot(net)
    injection = inject_(net, block_plan("gsf"))
    assert not same_snapshot(before, snapshot(net))
    run(net, injection, frames(2, 3), 3).sum().backward()
    net.zero_grad()
    injection.remove_()
    assert same_snapshot(before, snapshot(net))
    x = frames(2, 3)
    assert torch.equal(net(x), seeded_net()(x))
    with pytest.raises(StateError, match="removed from their backbone"):
        injection.frames(3)
    with pytest.raises(StateError, match="already"):
        injection.remove_()
    inject_(net, block_plan("tsm"))


def test_scopes_nest_and_end_on_an_error() -> None:
    net, injection = injected("tsm")
    with injection.frames(3):
        three = net(frames(2, 3))
        with injection.frames(2):
            net(frames(3, 2))
        assert torch.equal(net(frames(2, 3)), three)
    with pytest.raises(ZeroDivisionError), injection.frames(3):
        raise ZeroDivisionError
    with pytest.raises(StateError, match=r"forward of a backbone.*outside of its wrapper.*unwrap\(\).*remove_\(\)"):
        net(frames(2, 3))
    with pytest.raises(StateError, match=r"module 'blocks.1.conv1'"):
        net.blocks[1](torch.zeros(2, 8, 4, 4, dtype=torch.float64))


@pytest.mark.parametrize("T", [0, -2, 1.5, True, "3", None])
def test_frames_must_be_a_whole_number(T: object) -> None:
    _, injection = injected("tsm")
    with pytest.raises(InputError, match="whole number of frames"):
        injection.frames(T)


def test_rows_that_are_no_clips_are_refused() -> None:
    net, injection = injected("tsm")
    with pytest.raises(InputError, match="rows of the backbone must be a multiple of T = 3, got 7"):
        run(net, injection, frames(7, 1), 3)


def test_a_plan_without_sites_is_for_no_fusion_alone() -> None:
    net = seeded_net()
    injection = inject_(net, Plan(NoFusionConfig(), (), (3, 10, 14)))
    x = frames(2, 3)
    assert torch.equal(run(net, injection, x, 3), seeded_net()(x))
    with pytest.raises(InputError, match="no site"):
        inject_(seeded_net(), Plan(TSMConfig(), (), (3, 10, 14)))


class Skips(nn.Module):
    """Uses the weight of its layer without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.skipped = (nn.Conv2d(8, 8, 1).double() for _ in range(2))

    def forward(self, x: Tensor, call: bool = False) -> Tensor:
        return self.skipped(self.used(x)) if call else nn.functional.conv2d(self.used(x), self.skipped.weight)


def test_a_site_that_does_not_fire_is_an_error_in_a_whole_forward_only() -> None:
    net = Skips()
    injection = inject_(net, make_plan("tsm", ["used", "skipped"]))
    x = torch.zeros(6, 8, 5, 7, dtype=torch.float64)
    with injection.frames(3):
        net(x, call=True)
    for T in (1, 3):
        with pytest.raises(StateError, match=r"1 of 2 sites did not fire.*: skipped; .*reparameterise first"):
            run(net, injection, x, T)
    with injection.frames(3):
        net.used(x)


def test_modules_that_were_replaced_or_lost_their_hook_are_named() -> None:
    net, injection = injected("tsm")
    net.blocks[1].conv1 = nn.Conv2d(8, 8, 3, padding=1).double()
    with pytest.raises(StateError, match=r"1 of 3 sites are not .*: blocks\.1\.conv1; .*reparameterize_model"):
        injection.frames(3)
    net, injection = injected("tsm")
    net.blocks[2].conv1._forward_pre_hooks.clear()
    with pytest.raises(StateError, match=r"blocks\.2\.conv1"):
        injection.frames(3)
    net, injection = injected("tsm")
    injection.get_submodule("blocks.0.conv1").tsm = nn.Identity()
    with pytest.raises(StateError, match=r"blocks\.0\.conv1"):
        injection.frames(3)


def test_data_parallel_replicas_are_refused() -> None:
    net, injection = injected("tsm")
    with injection.frames(3):
        replica = net._replicate_for_data_parallel()
        with pytest.raises(UnsupportedError, match="DistributedDataParallel"):
            replica(frames(2, 3))
    with pytest.raises(UnsupportedError, match="DistributedDataParallel"):
        injection._replicate_for_data_parallel().frames(3)
