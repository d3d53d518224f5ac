"""A plan changes nothing, is the same every time, and reads as a table."""

import copy
import dataclasses
import pickle

import pytest
import timm
import torch
from plan_cases import SIZE, Residual, Transformer, conv, network
from torch import Tensor, nn

from image2video.errors import InputError
from image2video.fusion import GSFConfig
from image2video.inject import plan


def state_of(net: nn.Module) -> list[object]:
    """All of a model that a plan could change, by identity and by value."""
    out: list[object] = []
    for name, module in net.named_modules():
        hooks = [list(getattr(module, kind)) for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")]
        attributes = {k: id(v) for k, v in vars(module).items() if not k.startswith("_")}
        out.append((name, type(module), id(module), module.training, hooks, attributes))
    for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
        out.append((name, id(tensor), tensor.requires_grad, tensor._version, tensor.grad is None))
    return out


class Narrow(nn.Module):
    """A residual branch of four channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(4, 4), conv(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x).relu())


class LooksAtData(nn.Module):
    """Branches on a value, keeps a cache and draws random numbers: fake tensors cannot trace it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network(Residual(nn.Sequential(conv(16, 16), conv(16, 16))))
        self.register_buffer("calls", torch.zeros(1))
        self.cache: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.cache = x
        return self.net(x + torch.rand(1).item() * 0)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    "build",
    [
        LooksAtData,
        Transformer,
        lambda: timm.create_model("test_resnet"),
        lambda: timm.create_model("test_vit", features_only=True),
    ],
)
def test_the_model_stays_bit_for_bit(build, train):
    net = build().train(train)
    for number, parameter in enumerate(net.parameters()):
        parameter.requires_grad_(number % 2 == 0)
    size = (3, 160, 160) if hasattr(net, "feature_info") else SIZE
    state, values = state_of(net), copy.deepcopy(net.state_dict())
    random_state = torch.get_rng_state()
    for fusion in ("tsm", "gsf", "conv3d"):
        plan(net, fusion=fusion, input_size=size)
    assert state_of(net) == state
    assert torch.equal(torch.get_rng_state(), random_state)
    assert list(net.state_dict()) == list(values)
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), values.values(), strict=True))


def test_a_refused_plan_changes_nothing_either():
    net = LooksAtData().train()
    state = state_of(net)
    with pytest.raises(InputError, match="failed on images"):
        plan(net, input_size=(1, 24, 40))
    assert state_of(net) == state
    assert net.cache is None


def test_a_model_that_looks_at_its_data_is_planned():
    assert plan(LooksAtData(), fusion="tsm", input_size=SIZE).names == ("net.1.0.body.0",)


def test_the_same_plan_every_time_and_on_the_meta_device():
    net = timm.create_model("test_efficientnet")
    with torch.device("meta"):
        empty = timm.create_model("test_efficientnet")
    first = plan(net, fusion=GSFConfig(ratio=0.5))
    assert first == plan(net, fusion=GSFConfig(ratio=0.5)) == plan(empty, fusion=GSFConfig(ratio=0.5))
    assert hash(first) == hash(pickle.loads(pickle.dumps(first)))
    assert pickle.loads(pickle.dumps(first)) == first


def test_a_plan_is_frozen():
    made = plan(network(Residual(nn.Sequential(conv(16, 16), conv(16, 16)))), input_size=SIZE)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.sites = ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.sites[0].name = "other"


def test_a_plan_prints_every_site_and_what_was_left_out():
    net = network(Residual(nn.Sequential(conv(16, 16), conv(16, 16))), Residual(nn.Sequential(nn.Conv2d(16, 16, 1))))
    text = str(plan(net, fusion="tsm", input_size=SIZE))
    assert text.splitlines()[0] == "Sequential: 2 tsm sites at input 3×24×40"
    row = next(line for line in text.splitlines() if line.startswith("1.0.body.0"))
    assert row.split("  ")[0] == "1.0.body.0"
    assert all(word in row for word in ("before", "16", "(N, C, H, W)", "1×16×6×10", "residual", "1.0"))
    narrow = nn.Sequential(conv(3, 16), Residual(nn.Sequential(conv(16, 16), conv(16, 16))), conv(16, 4), Narrow())
    text = str(plan(narrow, fusion="tsm", input_size=SIZE))
    assert "1 left out:" in text
    assert "4 channels are too few to split" in text
