"""Blocks that a compiler is told to leave alone, and modules whose forward is set on the object."""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from inject_cases import randomise
from torch import Tensor, nn

from image2video import VideoWrap
from image2video.errors import UnsupportedError
from image2video.inject.planning import plan

SIZE = (3, 12, 16)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x).relu())


class Disabled(Block):
    @torch.compiler.disable
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class DisabledOutside(Block):
    @torch.compiler.disable(recursive=False)
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


def disabled_method(block: Block) -> None:
    block.forward = torch.compiler.disable(block.forward)  # type: ignore[method-assign]


def bound(block: Block) -> None:
    block.forward = types.MethodType(lambda self, x: Block.forward(self, x) * 1, block)  # type: ignore[method-assign]


CASES: dict[str, tuple[type[Block], Callable[[Block], None] | None]] = {
    "class": (Disabled, None),
    "not recursive": (DisabledOutside, None),
    "method": (Block, disabled_method),
    "bound": (Block, bound),
}


def network(kind: type[Block] = Block, change: Callable[[Block], None] | None = None) -> nn.Sequential:
    block = kind()
    if change is not None:
        change(block)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), Block(), block, Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    randomise(net, seed=0, scale=0.2)
    return net.eval()


def wrapped(net: nn.Module, fusion: str) -> VideoWrap:
    model = VideoWrap(net, fusion, genotype="rotate(10) > translate_x(0.1)", T=3, residual=False, input_size=SIZE)
    randomise(model.fusion, seed=3)
    return model.eval()


def images(rows: int) -> Tensor:
    return torch.randn(rows, *SIZE, generator=torch.Generator().manual_seed(rows))


@pytest.fixture
def _fresh_dynamo() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("fusion", ["tsm", "gsf", "conv3d"])
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_they_have_the_sites_of_the_plain_blocks(case: str, fusion: str) -> None:
    bare = network(*CASES[case])
    assert plan(bare, fusion=fusion, input_size=SIZE).sites == plan(network(), fusion=fusion, input_size=SIZE).sites
    assert torch.equal(wrapped(bare, fusion)(images(2)), wrapped(network(), fusion)(images(2)))


@pytest.mark.slow  # each case compiles four graphs with breaks
@pytest.mark.usefixtures("_fresh_dynamo")
@pytest.mark.parametrize("case", ["class", "not recursive", "method"])
@torch.no_grad()
def test_compiled_around_them_each_call_and_thread_has_its_own_t(case: str) -> None:
    model, plain = wrapped(network(*CASES[case]), "gsf"), wrapped(network(), "gsf")
    compiled = torch.compile(model, backend="eager")
    calls = [(images(1), 2), (images(2), 3)]
    expected = [plain(x, T=T) for x, T in calls]
    for (x, T), right in zip(calls, expected, strict=True):
        torch.testing.assert_close(compiled(x, T=T), right)

    @torch.no_grad()
    def off(i: int) -> float:
        x, T = calls[i % 2]
        return float((compiled(x, T=T) - expected[i % 2]).abs().max())

    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(off, range(24))) < 1e-5


@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_dynamo")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's compiler reads it
def test_gradients_of_a_step_that_is_compiled_around_them() -> None:
    found = []
    for compiled in (False, True):
        model = wrapped(network(Disabled), "gsf").train()
        run = torch.compile(model, backend="eager") if compiled else model
        run(images(2), T=2).square().sum().backward()
        found.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(found[1], found[0])


def test_a_function_that_runs_the_original_is_refused() -> None:
    """A copy shares it, so that the trace would miss the sites in its block, and copies of the model its weights."""
    net = network()
    block = net[2]
    forward = block.forward

    @functools.wraps(forward)
    def logged(x: Tensor) -> Tensor:
        return forward(x)

    block.forward = logged  # type: ignore[method-assign]
    with pytest.raises(UnsupportedError, match=r"original's parameter '2\.conv1\.weight'.*types\.MethodType"):
        VideoWrap(net, "gsf", input_size=SIZE)
    assert copy.deepcopy(net)[2].forward is logged
    del block.forward
    assert len(plan(net, fusion="gsf", input_size=SIZE).sites) == 3
