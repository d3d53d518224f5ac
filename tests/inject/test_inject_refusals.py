"""What `inject_` refuses, and that a refused backbone is as it was."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from inject_cases import Net, block_plan, make_plan, same_snapshot, seeded_net, snapshot
from torch import nn

from image2video.errors import Image2VideoError, InputError, InputTypeError, StateError, UnsupportedError
from image2video.fusion import TSM, GSFConfig, register_fusion
from image2video.inject.api import Injection, inject_
from image2video.inject.plan import Plan
from image2video.trace.layout import NLC


@register_fusion("conv2")
class NamedLikeAModule(TSM):
    """A shift with an unlucky name."""


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(torch.jit.script(nn.Conv2d(8, 8, 1)))


def part_compiled() -> nn.Module:
    net = Net()
    net.blocks[1].compile(backend="eager")
    return net


def injected() -> nn.Module:
    net = Net()
    net.owners = [inject_(net, block_plan("tsm"))]
    return net


REFUSED: dict[str, tuple[Callable[[], nn.Module], Plan, type[Image2VideoError], str]] = {
    "compiled": (lambda: torch.compile(Net(), backend="eager"), block_plan("tsm"), StateError, "compiled already"),
    "part compiled": (part_compiled, block_plan("tsm"), StateError, r"'blocks\.1' of the backbone is compiled"),
    "injected": (injected, block_plan("gsf"), StateError, "holds injected fusions already"),
    "injected inside": (
        lambda: nn.Sequential(injected()),
        make_plan("tsm", ["0.stem"], channels=3),
        StateError,
        "module '0' of the backbone holds",
    ),
    "scripted": (scripted, make_plan("tsm", ["0"]), UnsupportedError, "scripted"),
    "data parallel": (lambda: nn.DataParallel(Net()), block_plan("tsm"), UnsupportedError, "plain backbone first"),
    "missing": (
        Net,
        make_plan("tsm", ["blocks.0.conv1", "blocks.7.conv1", "layer1.conv"]),
        InputError,
        r"2 of 3 sites differ:\n- blocks\.7\.conv1: .*blocks has 0, 1, 2\)\n- layer1\.conv: .*has stem, blocks, head\)",
    ),
    "channels before": (
        Net,
        make_plan("tsm", ["stem"]),
        InputError,
        r"- stem: planned with 8 channels \(before\); Conv2d there has 3",
    ),
    "channels after": (
        Net,
        make_plan("gsf", ["head"], layout=NLC),
        InputError,
        r"- head: planned with 8 channels \(after\); Linear there has 5",
    ),
    "twice": (Net, make_plan("tsm", ["stem", "blocks.0.conv1", "stem"]), InputError, "twice: stem"),
    "root": (Net, make_plan("tsm", [""]), InputError, "backbone itself"),
    "clash": (
        Net,
        make_plan("conv2", ["blocks.0", "blocks.0.conv2"]),
        InputError,
        r"fusion 'conv2' at site 'blocks\.0' .* blocks\.0\.conv2",
    ),
    "other fusion's place": (
        Net,
        Plan(GSFConfig(), block_plan("tsm").sites, (3, 10, 14)),
        InputError,
        "placed 'before'; fusion 'gsf' acts 'after'",
    ),
    "too few channels": (Net, make_plan("gsf", ["blocks"], channels=3), InputError, "too few"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_backbones_stay_as_they_were(case: str) -> None:
    make, plan, error, message = REFUSED[case]
    backbone = make()
    before = snapshot(backbone)
    with pytest.raises(error, match=message):
        inject_(backbone, plan)
    assert same_snapshot(before, snapshot(backbone))


def test_a_fusion_that_fails_to_build_at_a_later_site_leaves_no_hook_at_the_first() -> None:
    net = seeded_net()
    before = snapshot(net)
    good, bad = make_plan("gsf", ["blocks.0.conv2"]), make_plan("gsf", ["blocks.1"], channels=2)
    with pytest.raises(InputError, match="too few"):
        inject_(net, Plan(GSFConfig(), good.sites + bad.sites, (3, 10, 14)))
    assert same_snapshot(before, snapshot(net))


def test_wrong_types_are_named() -> None:
    with pytest.raises(InputTypeError, match=r"the backbone must be an nn\.Module, got a str"):
        inject_("resnet50", block_plan("tsm"))
    with pytest.raises(InputTypeError, match=r"the plan must be a Plan, got a dict"):
        inject_(Net(), {})


def test_a_module_of_unknown_channels_is_checked_when_it_runs() -> None:
    inject_(nn.Sequential(nn.Identity()), make_plan("tsm", ["0"], channels=64)).remove_()


def test_child_names_that_modules_have_methods_of_are_no_clash() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self._modules["frames"] = nn.Sequential(nn.Conv2d(8, 8, 1))
            self._modules["plan"] = nn.Conv2d(8, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self._modules["plan"](self._modules["frames"](x))

    net = Odd()
    injection = inject_(net, make_plan("gsf", ["frames.0", "plan"]))
    assert {"frames.0.gsf.bn.weight", "plan.gsf.bn.weight"} <= set(injection.state_dict())
    injection.load_state_dict(injection.state_dict())
    with Injection.frames(injection, 3):  # on the object, the name is that of the level which holds fusions
        assert net(torch.zeros(6, 8, 5, 7)).shape == (6, 8, 5, 7)
    assert isinstance(injection._plan, Plan)
