"""GSF against an oracle written from the paper's steps, its gradient, and the forms of its state dict."""

import math

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from image2video.fusion import GSF
from image2video.fusion.gsf_plain import plain_fuse
from image2video.fusion.gsf_written import written_fuse
from image2video.fusion.shift import Shift
from image2video.fusion.testing import randomised
from image2video.trace.layout import NHWC, Layout

MEMORY_FORMATS = [torch.contiguous_format, torch.channels_last]


def oracle(module, frames, T):
    """Steps 1 to 6, frame by frame where a step allows it, on (B, C, T, H, W) in training mode."""
    C, H, W = frames.shape[1:]
    p = module.fused_channels
    x = frames.view(-1, T, C, H, W).transpose(1, 2)[:, :p]
    B = x.shape[0]
    mean = x.mean((0, 2, 3, 4), keepdim=True)
    variance = x.var((0, 2, 3, 4), keepdim=True, unbiased=False)
    normed = (x - mean) / (variance + module.bn.eps).sqrt()
    normed = normed * module.bn.weight.view(1, -1, 1, 1, 1) + module.bn.bias.view(1, -1, 1, 1, 1)
    conv = nn.functional.conv3d(normed.clamp(min=0), module.conv3D.weight, module.conv3D.bias, padding=1, groups=2)
    gate = conv.tanh()
    out = []
    for k, fuse in enumerate((module.channel_conv1, module.channel_conv2)):
        half = x[:, k * p // 2 : (k + 1) * p // 2]
        y = gate[:, k : k + 1] * half
        r = half - y
        moved = torch.zeros_like(y)
        for t in range(T):
            source = t + (1 if k == 0 else -1)
            if 0 <= source < T:
                moved[:, :, t] = y[:, :, source]
        a = fuse(torch.stack([moved.mean((3, 4)), r.mean((3, 4))], dim=1)).sigmoid().view(B, p // 2, T, 1, 1)
        fused = a * moved + (1 - a) * r
        interleaved = torch.empty_like(fused)
        for i in range(2):
            for j in range(p // 4):
                interleaved[:, 2 * j + i] = fused[:, i * (p // 4) + j]
        out.append(interleaved)
    out = torch.cat(out, dim=1).transpose(1, 2).reshape(-1, p, H, W)
    return torch.cat([out, frames[:, p:]], dim=1)


@pytest.mark.parametrize("T", [2, 3, 5])
@pytest.mark.parametrize(("channels", "ratio"), [(16, 0.25), (22, 0.5), (8, 1.0)])
@pytest.mark.parametrize("memory_format", MEMORY_FORMATS)
def test_outputs_and_gradients_equal_the_steps_of_the_paper(T, channels, ratio, memory_format):
    torch.manual_seed(3)
    module = randomised(GSF(channels, ratio)).double()
    frames = torch.randn(2 * T, channels, 6, 9, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    inputs = [frames, *module.parameters()]
    upstream = torch.randn_like(frames)
    came, expected = module(frames, T), oracle(module, frames, T)
    torch.testing.assert_close(came, expected, rtol=0, atol=1e-11)
    assert came.is_contiguous(memory_format=memory_format)
    for one, other in zip(
        torch.autograd.grad(came, inputs, upstream), torch.autograd.grad(expected, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("padding", ["zeros", "replicate", "circular"])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("residual", [False, True])
def test_the_written_gradient_equals_that_of_plain_operations(padding, parts, residual):
    generator = torch.Generator().manual_seed(5)

    def draw(*shape):
        return torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()

    N, p = 2 * 3 * parts, 8
    scale = draw(p) if residual else None
    tensors = (draw(N, p, 4, 5), draw(N, 3, 4, 5), draw(N, 2, 4, 5), scale, draw(2, 2, 3, 3), draw(2))
    leaves = [tensor for tensor in tensors if tensor is not None]
    upstream = torch.randn(N, p + 3, 4, 5, dtype=torch.float64, generator=generator)
    written, plain = (f(*tensors, Shift(3, parts, padding)) for f in (written_fuse, plain_fuse))
    torch.testing.assert_close(written, plain)
    for one, other in zip(
        torch.autograd.grad(written, leaves, upstream), torch.autograd.grad(plain, leaves, upstream), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("residual", [False, True])
def test_inference_equals_training_outputs(context, residual):
    module, frames = randomised(GSF(16, residual=residual)).eval(), torch.randn(6, 16, 5, 7)
    with context():
        out = module(frames, 3)
    assert not out.requires_grad
    assert (out - module(frames, 3)).abs().max() < 1e-6, "sums are taken in another order"


def test_frames_without_gradient_train_the_module():
    module = randomised(GSF(16))
    module(torch.randn(6, 16, 5, 7), 3).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())


def test_backward_twice_through_one_forward():
    module, frames = randomised(GSF(16)), torch.randn(6, 16, 5, 7, requires_grad=True)
    out = module(frames, 3).square().sum()
    first = torch.autograd.grad(out, frames, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(out, frames)[0], first)


@pytest.mark.parametrize("channels", [4, 7, 64, 80, 116, 257])
@pytest.mark.parametrize("ratio", [0.01, 0.25, 0.6, 1.0])
def test_parameter_count(channels, ratio):
    p = min(4 * math.ceil(ratio * channels / 4), 4 * (channels // 4))
    module = GSF(channels, ratio)
    assert module.fused_channels == p
    assert sum(parameter.numel() for parameter in module.parameters()) == 29 * p + 40
    assert sum(parameter.numel() for parameter in GSF(channels, ratio, residual=True).parameters()) == 30 * p + 40


def public_state(channels):
    p = channels // 4
    return {
        "bn.weight": torch.rand(p),
        "bn.bias": torch.rand(p),
        "bn.running_mean": torch.rand(p),
        "bn.running_var": torch.rand(p),
        "bn.num_batches_tracked": torch.tensor(7),
        "conv3D.weight": torch.rand(2, p // 2, 3, 3, 3),
        "conv3D.bias": torch.rand(2),
        "channel_conv1.weight": torch.rand(1, 2, 3, 3),
        "channel_conv1.bias": torch.rand(1),
        "channel_conv2.weight": torch.rand(1, 2, 3, 3),
        "channel_conv2.bias": torch.rand(1),
    }


def test_public_state_dicts_load_strictly():
    state = public_state(32)
    module = GSF(32)
    module.load_state_dict(state, strict=True)
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in state.items())


@pytest.mark.parametrize("strict", [True, False])
def test_a_state_dict_of_the_other_form_is_refused(strict):
    with pytest.raises(RuntimeError, match=r"published GSF without 'scale'.*build it with residual=False"):
        GSF(32, residual=True).load_state_dict(public_state(32), strict=strict)
    with pytest.raises(RuntimeError, match=r"residual GSF with '0.scale'.*build it with residual=True"):
        nn.Sequential(GSF(32)).load_state_dict(nn.Sequential(GSF(32, residual=True)).state_dict(), strict=strict)


def test_a_state_dict_without_the_module_only_misses_keys():
    incompatible = nn.Sequential(GSF(32, residual=True)).load_state_dict({}, strict=False)
    assert "0.scale" in incompatible.missing_keys


def test_no_weight_decay_names_scales_biases_and_norms():
    named = {"bn.weight", "bn.bias", "conv3D.bias", "channel_conv1.bias", "channel_conv2.bias", "scale"}
    assert GSF(16, residual=True).no_weight_decay() == named


def test_prefix_tokens_pass_unchanged_and_tokens_are_a_map():
    module = randomised(GSF(16)).eval()
    frames = torch.randn(6, 16, 3, 5)
    tokens = torch.cat([torch.randn(6, 1, 16), frames.flatten(2).mT], dim=1)
    out = module(tokens, 3, layout=Layout(-1, "tokens", prefix_tokens=1, grid=(3, 5)))
    assert torch.equal(out[:, :1], tokens[:, :1])
    torch.testing.assert_close(out[:, 1:].mT.unflatten(2, (3, 5)), module(frames, 3))
    last = module(frames.permute(0, 2, 3, 1).contiguous(), 3, layout=NHWC)
    assert last.is_contiguous()


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(residual, dtype):
    conv, module = nn.Conv2d(3, 32, 3, padding=1), randomised(GSF(32, residual=residual))
    images = torch.randn(6, 3, 8, 9)
    expected = module(conv(images), 3)
    with torch.autocast("cpu", dtype=dtype):
        out = module(conv(images), 3)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.05)
    out.float().square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


def test_a_half_precision_module():
    module, frames = GSF(32, residual=True).bfloat16(), torch.randn(6, 32, 5, 7).bfloat16().requires_grad_()
    out = module(frames, 3)
    assert torch.equal(out, frames)
    out.sum().backward()
    assert frames.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradients_are_equal_under_checkpointing(use_reentrant):
    module, frames = randomised(GSF(32)).eval(), torch.randn(6, 32, 5, 7, requires_grad=True)
    inputs = [frames, *module.parameters()]

    def gradients(out):
        for tensor in inputs:
            tensor.grad = None
        out.square().sum().backward()
        return [tensor.grad for tensor in inputs]

    expected = gradients(module(frames, 3))
    came = gradients(checkpoint(module, frames, 3, use_reentrant=use_reentrant))
    assert all(torch.equal(one, other) for one, other in zip(came, expected, strict=True))


def test_synchronised_batch_norm_takes_the_place_of_the_norm():
    module = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(GSF(16)))[0].eval()
    assert isinstance(module.bn, nn.SyncBatchNorm)
    assert module(torch.randn(6, 16, 5, 7), 3).shape == (6, 16, 5, 7)


def test_an_identity_in_place_of_the_norm_leaves_the_frames_alone():
    module, frames = GSF(16), torch.randn(6, 16, 5, 7)
    module.bn = nn.Identity()
    before = frames.clone()
    module(frames, 3)
    assert torch.equal(frames, before)
