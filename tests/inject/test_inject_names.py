"""Parts of a backbone that are named as an attribute or a method of what holds the fusions."""

import ast
import copy
import inspect
import pickle

import pytest
import torch
from torch import nn
from wrap_helpers import images, stir

from image2video import VideoWrap
from image2video.errors import InputError
from image2video.inject.api import Injection

SIZE = (3, 16, 24)


class Net(nn.Module):
    """Convolutions below and at such names."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.backbone = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.plan = nn.Conv2d(8, 8, 3, padding=1)
        self.paths = nn.Conv2d(8, 8, 3, padding=1)
        self.frames = nn.ModuleDict({"tie": nn.Conv2d(8, 8, 3, padding=1)})
        self.tie = nn.Conv2d(8, 8, 3, padding=1)
        self.fuse = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        x = self.backbone(self.stem(x))
        for layer in (self.plan, self.paths, self.frames["tie"], self.tie, self.fuse):
            x = x + layer(x).relu()
        return x.mean((2, 3))


SITES = ["backbone.0", "plan", "paths", "frames.tie", "tie", "fuse"]


def wrapped(fusion, **options):
    return VideoWrap(Net().eval(), fusion, T=3, input_size=SIZE, sites=SITES, **options).eval()


@pytest.mark.parametrize("fusion", ["gsf", "gsm", "conv3d"])
def test_torch_finds_the_parameters(fusion):
    model, batch = wrapped(fusion), images(size=SIZE)
    stir(model.fusion)
    with torch.no_grad():
        expected = model(batch)
        names = [name for name, _ in model.named_parameters()]
        for name in names:
            owner, _, last = name.rpartition(".")
            assert model.get_submodule(owner)._parameters[last] is model.get_parameter(name)
        assert {name.split(".")[1] for name in names if name.startswith("fusion.")} >= {"backbone", "plan", "frames"}
        found = torch.func.functional_call(model, dict(model.named_parameters()), (batch,))
        zeros = {name: torch.zeros_like(value) for name, value in model.fusion.named_parameters(prefix="fusion")}
        other = torch.func.functional_call(model, zeros, (batch,))
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(other, expected)


@pytest.mark.parametrize("fusion", ["gsf", "conv3d"])  # GSM has the names of GSF
def test_export(fusion):
    model, batch = wrapped(fusion), images(size=SIZE)
    stir(model.fusion)
    with torch.no_grad():
        program = torch.export.export(model, (batch,), strict=False)
        torch.testing.assert_close(program.module()(batch), model(batch), atol=1e-5, rtol=1e-5)


def test_the_library_works_with_such_a_network():
    model, batch = wrapped("gsf", genotype="rotate(9)", clip_at="backbone"), images(size=SIZE)
    stir(model.fusion)
    with torch.no_grad():
        expected = model(batch)
        for same in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            torch.testing.assert_close(same(batch), expected)
            assert same.fusion.frames is same.fusion._modules["frames"]
        assert list(same.state_dict()) == list(model.state_dict())
        again = wrapped("gsf", genotype="rotate(9)", clip_at="backbone")
        again.load_state_dict(model.state_dict())
        torch.testing.assert_close(again(batch), expected)
    assert model.plan.names == tuple(SITES) or set(model.plan.names) == set(SITES)
    assert model.no_weight_decay() is not None
    assert isinstance(model.train().unwrap(), Net)


def below(name):
    net = nn.Sequential()
    net.add_module("first", nn.Conv2d(3, 8, 3, padding=1))
    net.add_module(name, nn.Sequential(nn.Conv2d(8, 8, 3, padding=1)))
    return net


@pytest.mark.parametrize("name", ["_plan", "_removed"])
def test_a_name_that_the_injection_replaces_is_refused(name):
    net = below(name)
    with pytest.raises(InputError, match=rf"the part '{name}' of the backbone has the site of a fusion \({name}\.0\)"):
        VideoWrap(net, "gsf", T=3, input_size=SIZE, sites=[f"{name}.0"])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert VideoWrap(net, "none", T=3, input_size=SIZE).eval()(images(size=SIZE)).shape[1] == 8


@pytest.mark.parametrize("name", ["_backbone", "_context", "_root", "_hooks", "_norms", "_handles", "_exit", "_path"])
def test_a_name_that_the_injection_only_reads_is_free(name):
    batch = images(size=SIZE)
    model = VideoWrap(below(name), "gsf", T=3, input_size=SIZE, sites=[f"{name}.0"])
    other = VideoWrap(below("part"), "gsf", T=3, input_size=SIZE, sites=["part.0"])
    stir(model.fusion)
    for mine, its in zip(model.parameters(), other.parameters(), strict=True):
        its.data.copy_(mine.data)
    model.eval()(batch).sum().backward()
    assert all(parameter.grad is not None for parameter in model.fusion.parameters())
    again = copy.deepcopy(model)
    with torch.no_grad():
        torch.testing.assert_close(again(batch), other.eval()(batch))


def test_what_is_replaced_in_use_is_known():
    """Whatever an injection assigns outside of its constructor."""
    from image2video.inject import api

    source = ast.parse(inspect.getsource(Injection).lstrip())
    methods = [node for node in source.body[0].body if isinstance(node, ast.FunctionDef) and node.name != "__init__"]
    nodes = [node for method in methods for node in ast.walk(method)]
    targets = [target for node in nodes if isinstance(node, ast.Assign) for target in node.targets]
    assert {t.attr for t in targets if isinstance(t, ast.Attribute) and t.attr.startswith("_")} == api._REPLACED


def test_other_names_with_an_underscore_are_free():
    net = nn.Sequential()
    net.add_module("_conv_stem", nn.Conv2d(3, 8, 3, padding=1))
    net.add_module("_blocks", nn.Sequential(nn.Conv2d(8, 8, 3, padding=1)))
    model = VideoWrap(net.eval(), "gsf", T=3, input_size=SIZE, sites=["_blocks.0"]).eval()
    assert model.get_submodule("fusion._blocks.0") is model.fusion._modules["_blocks"]._modules["0"]


def test_every_method_gives_way():
    from image2video.inject import api

    own = {name for name, value in vars(Injection).items() if not name.startswith("_")}
    assert own == api._METHODS | {"plan", "paths", "backbone"}
