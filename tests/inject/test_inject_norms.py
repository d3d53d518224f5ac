"""Batch norms that are folded after wrapping: exact where the fusion stands before its layer, refused elsewhere."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from inject_cases import Pair, make_plan, randomise
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_conv_bn_weights

from image2video.errors import StateError
from image2video.inject.api import inject_
from image2video.wrap.video_wrap import VideoWrap


class Normed(nn.Module):
    """A residual block of two convolutions with norms, behind a stem with one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.act = nn.ReLU()
        self.bn2 = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return (x + self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))).mean((2, 3))


def normed() -> Normed:
    net = Normed()
    randomise(net, seed=0)
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return net.eval()


def fold_in_place(module: nn.Module) -> None:
    """What `fuse_conv_bn` of mmcv does: the layer stays, with new weights, and an Identity takes the norm's place."""
    conv = None
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d) and conv is not None:
            conv.weight, conv.bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, child.running_mean, child.running_var, child.eps, child.weight, child.bias
            )
            module._modules[name] = nn.Identity()
            conv = None
        elif isinstance(child, nn.Conv2d):
            conv = child
        else:
            fold_in_place(child)


def make_pair(net: nn.Module, fusion: str, names: list[str]) -> Pair:
    pair = Pair(net, inject_(net, make_plan(fusion, names))).eval()
    randomise(pair.fusion, seed=3)
    return pair


X = torch.randn(6, 3, 9, 11, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("fusion", ["gsf", "gsm", "conv3d"])
def test_norms_that_are_folded_behind_a_fusion_are_refused(fusion: str) -> None:
    pair = make_pair(normed(), fusion, ["conv1", "conv2"])
    pair(X, 3)
    fold_in_place(pair.backbone)
    message = (
        r"norms behind 2 sites were folded .*fuse_conv_bn.*: conv1, conv2; .*fold the bare backbone first, then wrap"
    )
    with torch.no_grad(), pytest.raises(StateError, match=message):
        pair(X, 3)


@torch.no_grad()
def test_norms_that_are_folded_behind_a_shift_change_nothing() -> None:
    pair = make_pair(normed(), "tsm", ["conv1", "conv2"])
    expected = pair(X, 3)
    fold_in_place(pair)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in pair.modules())
    torch.testing.assert_close(pair(X, 3), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_norms_elsewhere_may_be_folded() -> None:
    pair = make_pair(normed(), "gsf", ["conv2"])
    expected = pair(X, 3)
    fold_in_place(pair.backbone.stem)
    torch.testing.assert_close(pair(X, 3), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fusion", ["gsf", "gsm", "conv3d", "tsm"])
@torch.no_grad()
def test_folding_first_is_the_way_that_works(fusion: str) -> None:
    net, folded = normed(), normed()
    fold_in_place(folded)
    names = ["conv1", "conv2"]
    torch.testing.assert_close(folded(X), net(X), rtol=1e-4, atol=1e-5)
    pair = make_pair(folded, fusion, names)
    assert not torch.allclose(pair(X, 3), pair(X, 3, False), atol=1e-3)
    torch.testing.assert_close(pair(X, 3, False), net(X), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_norm_of_another_class_is_none_that_was_folded() -> None:
    pair = make_pair(normed(), "gsf", ["conv1", "conv2"])
    expected = pair(X, 3)
    for name in ("bn1", "bn2"):
        norm = pair.backbone._modules[name]
        other = nn.SyncBatchNorm(8)
        other.load_state_dict(norm.state_dict())
        pair.backbone._modules[name] = other.eval()
    torch.testing.assert_close(pair(X, 3), expected)


@torch.no_grad()
def test_a_copy_notices_what_happens_to_it_alone() -> None:
    pair = make_pair(normed(), "gsf", ["conv1", "conv2"])
    twin = copy.deepcopy(pair)
    fold_in_place(twin.backbone)
    pair(X, 3)
    with pytest.raises(StateError, match="folded"):
        twin(X, 3)


def test_a_new_layer_in_place_of_both_is_refused() -> None:
    """As torch's own `fuse_conv_bn_eval` and the tools above it make one."""
    pair = make_pair(normed(), "gsf", ["conv1", "conv2"])
    net = pair.backbone
    net.conv2, net.bn2 = fuse_conv_bn_eval(net.conv2, net.bn2), nn.Identity()
    with pytest.raises(StateError, match=r"folded|not in the backbone any more"):
        pair(X, 3)


@pytest.mark.parametrize(
    "run",
    [
        lambda model: torch.compile(model, backend="eager", fullgraph=True)(X),
        lambda model: torch.export.export(model, (X,)),
    ],
    ids=["compile", "export"],
)
def test_compilers_notice_it_too(run: Callable[[nn.Module], object]) -> None:
    class Fixed(nn.Module):
        def __init__(self, pair: Pair) -> None:
            super().__init__()
            self.pair = pair

        def forward(self, x: Tensor) -> Tensor:
            return self.pair(x, 3)

    model = Fixed(make_pair(normed(), "gsf", ["conv1", "conv2"]))
    fold_in_place(model.pair.backbone)
    torch.compiler.reset()
    with torch.no_grad(), pytest.raises(Exception, match="folded into their layers"):
        run(model)


@torch.no_grad()
def test_a_wrapper_refuses_it() -> None:
    model = VideoWrap(normed(), "gsf", T=3, sites=make_plan("gsf", ["conv1"])).eval()
    images = torch.randn(2, 3, 9, 11, generator=torch.Generator().manual_seed(2))
    assert model(images).shape == (2, 8)
    fold_in_place(model)
    with pytest.raises(StateError, match=r"norms behind 1 sites were folded"):
        model(images)
