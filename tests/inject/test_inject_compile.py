"""Compiled, exported, traced and autocast calls equal eager ones; timm's checkpointing equals none."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from inject_cases import Pair, block_plan, frames, randomise, seeded_net
from torch import Tensor, nn

from image2video.inject.api import inject_
from image2video.inject.planning import plan

MODELS = ["test_resnet", "test_vit"]
SIZE = (3, 160, 160)


def make_pair(model: str, fusion: str = "gsf") -> Pair:
    """A timm model with its fusions, all weights drawn anew (fresh ones hide what fusion does)."""
    torch.manual_seed(0)
    options = {"depth": 2} if model == "test_vit" else {}
    backbone = timm.create_model(model, num_classes=7, **options).eval()
    pair = Pair(backbone, inject_(backbone, plan(backbone, fusion=fusion, input_size=SIZE))).eval()
    randomise(pair, seed=1, scale=0.1)
    for norm in pair.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm | nn.LayerNorm):
            nn.init.constant_(norm.weight, 0.9)
    return pair


def images(rows: int, seed: int = 2) -> Tensor:
    return torch.randn(rows, *SIZE, generator=torch.Generator().manual_seed(seed))


class Fixed(nn.Module):
    """A pair called with one T, as `torch.export` wants it: images in, frames made by repetition and noise."""

    def __init__(self, pair: Pair, T: int) -> None:
        super().__init__()
        self.pair = pair
        self.T = T

    def forward(self, x: Tensor) -> Tensor:
        ramp = torch.linspace(0.5, 1.5, self.T)[:, None, None, None]
        frames = (x.unsqueeze(1) * ramp).flatten(0, 1)
        return self.pair(frames, self.T).unflatten(0, (-1, self.T)).mean(1)


@pytest.mark.slow  # test_wrap_compile.py compiles whole wrappers of the same families by default
@pytest.mark.parametrize("model", MODELS)
def test_one_graph_for_every_number_of_frames(model: str) -> None:
    pair = make_pair(model)
    torch.compiler.reset()
    compiled = torch.compile(copy.deepcopy(pair), fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        for T in (5, 3, 8):
            x = images(T)
            torch.testing.assert_close(compiled(x, T), pair(x, T), rtol=1e-4, atol=1e-5)
    x = images(3)
    assert not torch.allclose(pair(x, 3), pair(x, 3, enabled=False), rtol=1e-3, atol=1e-4)


def test_gradients_of_a_compiled_step_and_the_switch() -> None:
    net = seeded_net(blocks=1)
    pair = Pair(net, inject_(net, block_plan("gsf", blocks=1)))
    randomise(pair, seed=1)
    twin = copy.deepcopy(pair)
    torch.compiler.reset()
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    for T, enabled in ((3, True), (1, True), (3, False)):
        x = frames(2, T)
        pair.zero_grad()
        twin.zero_grad()
        outputs = pair(x, T, enabled), compiled(x, T, enabled)
        torch.testing.assert_close(*outputs)
        for output in outputs:
            output.square().sum().backward()
        for (name, p), q in zip(pair.named_parameters(), twin.named_parameters(), strict=True):
            assert (p.grad is None) == (q[1].grad is None) == (name.startswith("fusion") and (T == 1 or not enabled))
            if p.grad is not None:
                torch.testing.assert_close(q[1].grad, p.grad)


@pytest.mark.slow  # test_wrap_compile.py exports whole wrappers of the same families by default
@pytest.mark.parametrize("model", MODELS)
def test_export_with_a_dynamic_batch(model: str) -> None:
    wrapped = Fixed(make_pair(model), 3)
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(wrapped, (images(2),), dynamic_shapes={"x": {0: batch}})
    for rows in (2, 5):
        x = images(rows, seed=rows)
        torch.testing.assert_close(program.module()(x), wrapped(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("model", MODELS)
def test_autocast(model: str, dtype: torch.dtype) -> None:
    pair = make_pair(model)
    x = images(3)
    with torch.no_grad():
        full = pair(x, 3)
        with torch.autocast("cpu", dtype):
            low = pair(x, 3)
    assert low.isfinite().all()
    torch.testing.assert_close(low.float(), full, rtol=0.1, atol=0.1 * float(full.abs().max()))


@pytest.mark.parametrize("model", MODELS)
def test_a_whole_model_in_bfloat16(model: str) -> None:
    pair = make_pair(model)
    with torch.no_grad():
        full = pair(images(3), 3)
        low = pair.to(torch.bfloat16)(images(3).bfloat16(), 3)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), full, rtol=0.1, atol=0.1 * float(full.abs().max()))


@pytest.mark.parametrize("fusion", ["tsm", "gsf"])
@pytest.mark.parametrize("model", MODELS)
def test_gradient_checkpointing_of_timm(model: str, fusion: str) -> None:
    """Two forwards with different T, the model's own checkpointing, one joint backward."""
    pair = make_pair(model, fusion)
    gradients = []
    for enable in (False, True):
        pair.backbone.set_grad_checkpointing(enable)
        pair.zero_grad()
        (pair(images(3), 3).square().sum() + pair(images(4, seed=3), 2).square().sum()).backward()
        gradients.append({name: p.grad.clone() for name, p in pair.named_parameters() if p.grad is not None})
    without, with_checkpoints = gradients
    assert set(without) == set(with_checkpoints) == {name for name, _ in pair.named_parameters()}
    for name, gradient in without.items():
        torch.testing.assert_close(
            with_checkpoints[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()), msg=name
        )
