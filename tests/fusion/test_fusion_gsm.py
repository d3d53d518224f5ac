"""GSM against an oracle written from the paper's steps, and the forms of its state dict."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from image2video.fusion import GSM
from image2video.fusion.gsm_written import plain_gate_shift, written_gate_shift
from image2video.fusion.shift import Shift
from image2video.fusion.testing import randomised


def oracle(module, frames, T):
    """Steps 1 to 3 and 5, on (B, C, T, H, W) in evaluation mode."""
    C, H, W = frames.shape[1:]
    x = frames.view(-1, T, C, H, W).transpose(1, 2)
    bn = module.bn
    normed = nn.functional.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, False, 0.0, bn.eps)
    gate = module.conv3D(normed.relu()).tanh()
    out = torch.empty_like(x)
    for c in range(C):
        k, (i, j) = c // (C // 2), divmod(c % (C // 2), C // 4)
        y = gate[:, k] * x[:, c]
        moved = torch.zeros_like(y)
        if k == 0:
            moved[:, :-1] = y[:, 1:]
        else:
            moved[:, 1:] = y[:, :-1]
        target = c if module.residual else k * (C // 2) + 2 * j + i
        out[:, target] = moved + x[:, c] - y
    return out.transpose(1, 2).reshape(frames.shape)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_outputs_equal_the_steps_of_the_paper(residual, memory_format):
    module = randomised(GSM(12, residual=residual)).eval()
    frames = torch.randn(8, 12, 5, 7).to(memory_format=memory_format)
    torch.testing.assert_close(module(frames, 4), oracle(module, frames, 4), rtol=0, atol=1e-5)


@pytest.mark.parametrize("padding", ["zeros", "replicate", "circular"])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_written_gradient_equals_that_of_plain_operations(padding, parts, interleaved, memory_format):
    generator = torch.Generator().manual_seed(5)

    def draw(*shape):
        return torch.randn(shape, dtype=torch.float64, generator=generator).to(memory_format=memory_format)

    N = 2 * 3 * parts
    frames, gate = draw(N, 8, 4, 5).requires_grad_(), draw(N, 2, 4, 5).requires_grad_()
    upstream, shift = draw(N, 8, 4, 5), Shift(3, parts, padding)
    written, plain = (f(frames, gate, shift, interleaved) for f in (written_gate_shift, plain_gate_shift))
    torch.testing.assert_close(written, plain)
    assert written.is_contiguous(memory_format=memory_format)
    came, expected = (torch.autograd.grad(out, (frames, gate), upstream) for out in (written, plain))
    for one, other in zip(came, expected, strict=True):
        torch.testing.assert_close(one, other)

    def inner(function):
        first = torch.autograd.grad(function(frames, gate, shift, interleaved), gate, upstream, create_graph=True)
        return torch.autograd.grad(first[0].square().sum(), (frames,))[0]

    torch.testing.assert_close(inner(written_gate_shift), inner(plain_gate_shift))


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradients_are_equal_under_checkpointing(use_reentrant):
    module, frames = randomised(GSM(32)), torch.randn(6, 32, 5, 7, requires_grad=True)
    inputs = [frames, *module.parameters()]

    def gradients(out):
        for tensor in inputs:
            tensor.grad = None
        out.square().sum().backward()
        return [tensor.grad for tensor in inputs]

    expected = gradients(module(frames, 3))
    came = gradients(checkpoint(module, frames, 3, use_reentrant=use_reentrant))
    assert all(torch.equal(one, other) for one, other in zip(came, expected, strict=True))


def test_a_backward_can_be_repeated_and_frames_are_left_alone():
    module, frames = randomised(GSM(16)), torch.randn(6, 16, 5, 7, requires_grad=True)
    kept = frames.detach().clone()
    out = module(frames, 3).sum()
    first = torch.autograd.grad(out, frames, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(out, frames)[0], first)
    assert torch.equal(frames, kept)


def test_the_zero_gate_only_interleaves():
    frames = torch.randn(6, 8, 5, 7)
    assert torch.equal(GSM(8)(frames, 3), frames[:, [0, 2, 1, 3, 4, 6, 5, 7]])
    assert torch.equal(GSM(8, residual=True)(frames, 3), frames)


def test_parameters():
    module = GSM(16)
    shapes = {name: tuple(value.shape) for name, value in module.named_parameters()}
    assert shapes == {"bn.weight": (16,), "bn.bias": (16,), "conv3D.weight": (2, 8, 3, 3, 3), "conv3D.bias": (2,)}
    assert [name for name, _ in GSM(16, residual=True).named_parameters()] == list(shapes)


@pytest.mark.parametrize("strict", [True, False])
def test_a_state_dict_of_the_other_form_is_refused(strict):
    public = GSM(16).state_dict()
    GSM(16).load_state_dict(public, strict=True)
    with pytest.raises(RuntimeError, match=r"published GSM without 'residual_form'.*residual=False"):
        GSM(16, residual=True).load_state_dict(public, strict=strict)
    with pytest.raises(RuntimeError, match=r"residual GSM with 'residual_form'.*residual=True"):
        GSM(16).load_state_dict(GSM(16, residual=True).state_dict(), strict=strict)
