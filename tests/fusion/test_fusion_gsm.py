"""GSM against an oracle written from the paper's steps, and the forms of its state dict."""

import pytest
import torch
from torch import nn

from image2video.fusion import GSM
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
