"""GSM and GSF in evaluation without gradient: equal to the path with gradient, and asked for where that is allowed."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from image2video.fusion import GSF, GSM, gated_inference
from image2video.fusion.base import Fusion
from image2video.fusion.testing import randomised

FUSIONS = {
    "gsm": lambda channels: GSM(channels),
    "gsm, residual": lambda channels: GSM(channels, residual=True),
    "gsf": lambda channels: GSF(channels),
    "gsf, residual": lambda channels: GSF(channels, residual=True),
    "gsf, all channels": lambda channels: GSF(channels, ratio=1.0),
}


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What `is_served` answered."""
    answers: list[bool] = []
    real = gated_inference.is_served

    def asked(*args: Any) -> bool:
        answers.append(real(*args))
        return answers[-1]

    for module in ("gsf", "gsm"):
        monkeypatch.setattr(f"image2video.fusion.{module}.is_served", asked)
    return answers


def fusion(name: str, channels: int) -> Fusion:
    module = randomised(FUSIONS[name](channels)).eval()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(generator=torch.Generator().manual_seed(1))
            norm.running_var.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(2))
    return module


@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize("T", [2, 3, 8])
@pytest.mark.parametrize(
    ("channels", "size"), [(64, (4, 5)), (160, (5, 4)), (24, (10, 9)), (16, (29, 30)), (72, (30, 29))]
)
def test_outputs_equal_those_with_gradient(
    name: str, T: int, channels: int, size: tuple[int, int], served: list[bool]
) -> None:
    """For one clip and for several, small maps and large ones, few channels and many."""
    module = fusion(name, channels)
    for B in (0, 1, 2):
        frames = torch.randn(B * T, channels, *size, generator=torch.Generator().manual_seed(B))
        kept = frames.clone()
        expected = module(frames, T).detach()
        with torch.no_grad():
            out = module(frames, T)
        assert served == [False, True]
        served.clear()
        assert torch.equal(frames, kept)
        assert out.is_contiguous()
        assert out.shape == expected.shape
        if B:
            assert (out - expected).abs().max() < 1e-6
        module.double()
        with torch.inference_mode():
            exact = module(frames.double(), T)
        assert served == [True]
        served.clear()
        assert torch.allclose(exact, module(frames.double(), T), rtol=0, atol=1e-12)
        served.clear()
        module.float()


@pytest.mark.parametrize("name", FUSIONS)
def test_changed_parameters_count_at_once(name: str) -> None:
    """Nothing is kept from call to call, so that writes past autograd's counters are seen as well."""
    module, frames = fusion(name, 32), torch.randn(6, 32, 5, 7)
    with torch.no_grad():
        module(frames, 3)
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.data.mul_(1.5)
        out = module(frames, 3)
    assert (out - module(frames, 3)).abs().max() < 2e-6


@pytest.mark.parametrize("name", ["gsm", "gsf"])
@pytest.mark.parametrize(
    ("change", "call"),
    [
        ("training", {}),
        ("channels_last", {}),
        ("bfloat16", {}),
        ("autocast", {}),
        ("replicate", {}),
        ("vmap", {}),
        ("gradient", {}),
        ("parts", {"parts": 2}),
    ],
)
def test_all_other_calls_go_the_other_way(name: str, change: str, call: dict[str, int], served: list[bool]) -> None:
    module, frames = fusion(name, 32), torch.randn(6, 32, 5, 7)
    module.requires_grad_(change == "gradient")
    if change == "training":
        module.train()
    if change == "channels_last":
        frames = frames.to(memory_format=torch.channels_last)
    if change == "bfloat16":
        module, frames = module.bfloat16(), frames.bfloat16()
    if change == "replicate":
        module.padding = "replicate"
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=change == "autocast"):
        if change == "vmap":
            torch.func.vmap(lambda one: module(one, 3))(frames[None])
        else:
            module(frames, 3, **call)
    # Of frames whose channels are innermost, GSF copies its share out as planes.
    assert served == [change == "channels_last" and name == "gsf"]


def used(module: Fusion) -> list[str]:
    """Names of the tensors that a module computes with."""
    return [name for name, _ in module.named_parameters()]


@pytest.mark.parametrize(("name", "weight"), [(name, weight) for name in FUSIONS for weight in used(FUSIONS[name](8))])
@pytest.mark.parametrize("how", ["attribute", "buffer", "parametrised"])
def test_weights_that_are_no_parameters_get_their_gradient(name: str, weight: str, how: str) -> None:
    """As in MAML and with hypernetworks."""
    module, frames = fusion(name, 8).requires_grad_(False), torch.randn(6, 8, 3, 4)
    path, _, attribute = weight.rpartition(".")
    owner = module.get_submodule(path)
    source = getattr(owner, attribute).detach().clone().requires_grad_()
    if how == "parametrised":
        shared = [source]  # no parameter of the module

        class Outside(nn.Module):
            def forward(self, frozen: Tensor) -> Tensor:
                return frozen * 0 + shared[0]

        parametrize.register_parametrization(owner, attribute, Outside())
    else:
        delattr(owner, attribute)
        if how == "buffer":
            owner.register_buffer(attribute, source * 1)
        else:
            setattr(owner, attribute, source * 1)
    (gradient,) = torch.autograd.grad(module(frames, 3).square().sum(), source)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", ["gsm", "gsf"])
def test_a_block_that_runs_twice_gives_the_same_bits(name: str, served: list[bool]) -> None:
    module, frames = fusion(name, 32), torch.randn(6, 32, 5, 7, requires_grad=True)
    assert torch.equal(checkpoint(module, frames * 1, 3, use_reentrant=True), module(frames, 3))
    assert served == [False, False]


def test_hooks_and_other_norms_are_called() -> None:
    module, frames = fusion("gsf", 32), torch.randn(6, 32, 5, 7)
    seen: list[Tensor] = []
    module.bn.register_forward_hook(lambda _, args, output: seen.append(output.clone()))
    with torch.inference_mode():
        module(frames, 3)
    assert len(seen) == 1
    module.bn = nn.Identity()
    kept = frames.clone()
    with torch.no_grad():
        out = module(frames, 3)
    assert torch.equal(frames, kept), "ReLU does not write to the frames"
    assert (out - module(frames, 3)).abs().max() < 1e-6
