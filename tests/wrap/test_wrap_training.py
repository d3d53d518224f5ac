"""`VideoWrap` in training: modes, copies, memory formats, precision and recomputation."""

import copy
import pickle

import pytest
import torch
from torch import nn
from wrap_helpers import ALL_FUSIONS, backbone, images, same_state, state_of, stir, wrapped

from image2video.wrap.video_wrap import VideoWrap


def test_the_mode_of_the_backbone_is_kept():
    assert not wrapped().training
    bare = backbone().train()
    model = VideoWrap(bare)
    assert model.training
    assert all(m.training for m in model.modules())


def test_freeze_bn():
    model = wrapped(freeze_bn=True).train()
    norms = [m for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 9
    assert not any(m.training for m in norms)
    assert model.backbone.layer1.training
    before = state_of(model.backbone)
    model(images()).sum().backward()
    assert same_state(state_of(model.backbone), before)
    assert all(m.weight.grad is not None for m in norms)
    assert any(m.num_batches_tracked for m in model.fusion.modules() if isinstance(m, nn.BatchNorm2d))
    bare = model.unwrap()
    assert all(m.training for m in bare.modules())
    unfrozen = wrapped().train()
    assert all(m.training for m in unfrozen.modules())


def test_every_fusion_parameter_learns_within_two_steps():
    model = wrapped().double().train()  # the second step's gradients are far below float32's resolution of a gain of 1
    before = state_of(model.fusion)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(2):
        loss = nn.functional.cross_entropy(model(images(seed=step).double()), torch.tensor([1, 7]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    moved = {name: not torch.equal(value, before[name]) for name, value in model.fusion.named_parameters()}
    assert moved
    assert all(moved.values()), [name for name, value in moved.items() if not value]


@pytest.mark.parametrize("make_copy", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@torch.no_grad()
def test_a_copy_uses_its_own_fusions(make_copy):
    model = wrapped(stirred=True)
    out = model(images())
    twin = make_copy(model)
    assert torch.equal(twin(images()), out)
    stir(twin.fusion)
    assert not torch.allclose(twin(images()), out)
    assert torch.equal(model(images()), out)
    twin.unwrap()
    assert torch.equal(model(images()), out)


@torch.no_grad()
def test_channels_last():
    model = wrapped(stirred=True)
    out = model(images())
    model.to(memory_format=torch.channels_last)
    assert model.backbone.layer1[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(images().to(memory_format=torch.channels_last)), out)
    nested = nn.Sequential(wrapped(stirred=True)).to(memory_format=torch.channels_last)
    torch.testing.assert_close(nested(images()), out)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("fusion", ALL_FUSIONS)
def test_autocast(fusion, dtype):
    model = wrapped(fusion, stirred=True).train()
    with torch.autocast("cpu", dtype):
        out = model(images())
        loss = out.float().square().mean()
    assert out.dtype == dtype
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in model.backbone.parameters())


@torch.no_grad()
def test_half_precision_models():
    model = wrapped(stirred=True)
    out = model(images())
    model.to(torch.bfloat16)
    half = model(images().bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), out, atol=0.15, rtol=0.15)


@pytest.mark.parametrize("fusion", ["gsf", "tsm"])
def test_gradient_checkpointing_gives_equal_gradients(fusion):
    gradients = []
    for enable in (False, True):
        model = wrapped(fusion, stirred=True).train()
        model.set_grad_checkpointing(enable)
        assert model.grad_checkpointing is enable
        out = model(images())
        model(images(), T=2)  # another T runs before the backward pass
        out.square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)
