"""Fusions compile in one graph and export with any batch, with the outputs and gradients of an eager call."""

from functools import partial

import pytest
import torch
from torch import nn

from image2video.fusion import GSF, GSM, TSM, Conv3d
from image2video.fusion.testing import randomised

FUSIONS = {
    "tsm": TSM,
    "gsm": partial(GSM, residual=True),
    "gsf": GSF,
    "gsf residual": partial(GSF, padding="circular", residual=True),
    "conv3d": partial(Conv3d, out_channels=6, kernel_size=3),
}


class Fused(nn.Module):
    """A module whose T is fixed, as an exported graph needs it."""

    def __init__(self, fusion, T):
        super().__init__()
        self.fusion, self.T = fusion, T

    def forward(self, frames):
        return self.fusion(frames, self.T)


@pytest.mark.parametrize("name", FUSIONS)
def test_compiles_in_one_graph(name):
    torch._dynamo.reset()
    module = randomised(FUSIONS[name](16))
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=False)
    for T in (5, 3) if name == "gsm" else (3,):  # each T is compiled anew
        frames = torch.randn(2 * T, 16, 5, 7, requires_grad=True)
        inputs = [frames, *module.parameters()]
        results = []
        for call in (module, compiled):
            out = call(frames, T)
            results.append((out.detach(), *torch.autograd.grad(out.square().sum(), inputs)))
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", FUSIONS)
def test_exports_with_a_dynamic_batch(name):
    module = Fused(randomised(FUSIONS[name](16)), 3).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(module, (torch.randn(6, 16, 5, 7),), dynamic_shapes=({0: 3 * batch},))
    frames = torch.randn(12, 16, 5, 7)
    torch.testing.assert_close(exported.module()(frames), module(frames), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_traces():
    module, frames = Fused(randomised(GSF(16)), 3).eval(), torch.randn(6, 16, 5, 7)
    traced = torch.jit.trace(module, (frames,))
    other = torch.randn(6, 16, 5, 7)
    torch.testing.assert_close(traced(other), module(other), rtol=1e-4, atol=1e-5)
