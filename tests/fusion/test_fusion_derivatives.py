"""Second derivatives and torch.func's transforms of the fusions, and memory formats of whole modules."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, vmap

from image2video.fusion import GSF, GSM, TSM
from image2video.fusion.testing import randomised
from image2video.inject import inject_, plan

FUSIONS = {
    "tsm": partial(TSM, fold_div=4),
    "gsm": GSM,
    "gsf": partial(GSF, ratio=0.5),
    "gsf residual": partial(GSF, ratio=0.5, residual=True),
}


def double(name: str) -> nn.Module:
    return randomised(FUSIONS[name](4)).double().eval()


def clip_frames() -> torch.Tensor:
    return torch.randn(6, 4, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


# Entry by entry: along random directions a gradient of the gate that is half as large again passes.
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("make", [partial(GSM, 4), partial(GSF, 5, 1.0)])
def test_first_derivatives(make, residual):
    module = randomised(make(residual=residual)).double()  # in training mode: the norms depend on the frames
    frames = torch.randn(6, module.channels, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: module(x, 3), (frames, *module.parameters()))


@pytest.mark.parametrize("name", FUSIONS)
def test_second_derivatives(name):
    module, frames = double(name), clip_frames()[:3].requires_grad_()
    inputs = (frames, *module.parameters())
    # Along random directions: entry by entry it takes ten times as long.
    assert torch.autograd.gradgradcheck(lambda x, *_: module(x, 3), inputs, fast_mode=True)


def test_a_penalty_on_the_gradient_reaches_frames_and_parameters():
    # Its upstream gradient is a constant, so that nothing but create_graph says that a second one comes.
    module, frames = double("gsf residual"), clip_frames()[:3].requires_grad_()

    def penalty(x: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(module(x, 3).sum(), x, create_graph=True)[0].square().sum()

    assert torch.autograd.gradcheck(lambda x, *_: penalty(x), (frames, *module.parameters()), fast_mode=True)


@pytest.mark.parametrize("name", FUSIONS)
def test_transforms_of_torch_func(name):
    module, frames = double(name), clip_frames().requires_grad_()
    (expected,) = torch.autograd.grad(module(frames, 3).square().sum(), frames)
    state = dict(module.named_parameters()) | dict(module.named_buffers())
    found = grad(lambda x: functional_call(module, state, (x, 3)).square().sum())(frames.detach())
    torch.testing.assert_close(found, expected)
    pairs = torch.stack([frames.detach(), frames.detach() + 1])
    torch.testing.assert_close(vmap(lambda x: module(x, 3))(pairs)[1], module(pairs[1], 3))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is")  # by which torch makes derivatives of its own
@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize("with_gradient", [True, False])
def test_forward_mode_gives_the_same_derivative_as_backward(name, with_gradient):
    module, frames = double(name).requires_grad_(with_gradient), clip_frames()
    along, weights = torch.randn_like(frames), torch.randn_like(frames)
    with torch.set_grad_enabled(with_gradient), forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(module(forward_ad.make_dual(frames, along), 3)).tangent
    (gradient,) = torch.autograd.grad(module(frames.requires_grad_(), 3), frames, weights)
    torch.testing.assert_close((tangent * weights).sum(), (along * gradient).sum())


def test_channels_last_leaves_kernels_of_five_dimensions():
    module, frames = double("gsf"), clip_frames()
    expected = module(frames, 3)
    module.to(memory_format=torch.channels_last)
    torch.testing.assert_close(module(frames.contiguous(memory_format=torch.channels_last), 3), expected)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
    injection = inject_(net, plan(net, input_size=(3, 16, 24)))
    nn.ModuleList([net, injection]).to(memory_format=torch.channels_last)
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert any(p.ndim == 5 for p in injection.parameters())
