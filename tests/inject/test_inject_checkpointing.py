"""A block that is recomputed in backward sees the T and the switch of its own forward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from inject_cases import Net, block_plan, frames, randomise, seeded_net
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from image2video.errors import StateError
from image2video.fusion import GSFConfig
from image2video.inject.api import Injection, inject_
from image2video.trace.recompute import ForwardLog, FrameState

# torch says this of an inner checkpoint while the outer one runs without gradients, wrongly.
pytestmark = pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")

MODES = ["reentrant", "saved", "nested"]
Case = Callable[[Net, Injection], None]


def build(checkpointing: str | None, fusion: object = GSFConfig(ratio=1)) -> tuple[Net, Injection]:
    net = seeded_net(checkpointing=checkpointing)
    injection = inject_(net, block_plan(fusion), residual=True)
    randomise(injection, seed=3, scale=1.0)
    return net, injection


def gradients(case: Case, checkpointing: str | None, fusion: object = GSFConfig(ratio=1)) -> list[Tensor]:
    net, injection = build(checkpointing, fusion)
    case(net, injection)
    parameters = [*net.parameters(), *injection.parameters()]
    assert all(p.grad is not None for p in parameters)
    return [p.grad for p in parameters]


def assert_recomputed_alike(case: Case, checkpointing: str, fusion: object = GSFConfig(ratio=1)) -> None:
    for bare, recomputed in zip(gradients(case, None, fusion), gradients(case, checkpointing, fusion), strict=True):
        torch.testing.assert_close(recomputed, bare, rtol=1e-9, atol=1e-12)


def loss(outputs: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (outputs * torch.randn(outputs.shape, generator=generator, dtype=outputs.dtype)).sum()


def call(net: Net, injection: Injection, T: int, *, images: int = 2, enabled: bool = True, seed: int = 5) -> Tensor:
    with injection.frames(T, enabled=enabled):
        return loss(net(frames(images, T, seed=seed)), seed)


def one(net: Net, injection: Injection) -> None:
    call(net, injection, 3).backward()


def other_forward_between(net: Net, injection: Injection) -> None:
    first = call(net, injection, 3)
    call(net, injection, 6, images=1, seed=6)
    first.backward()


def switched_off_between(net: Net, injection: Injection) -> None:
    first = call(net, injection, 3)
    with torch.no_grad():
        call(net, injection, 3, enabled=False)
    first.backward()


def joint(net: Net, injection: Injection) -> None:
    (call(net, injection, 3) + call(net, injection, 2, images=3, seed=6)).backward()


def joint_other_order(net: Net, injection: Injection) -> None:
    second = call(net, injection, 2, images=3, seed=6)
    (call(net, injection, 3) + second).backward()


def joint_with_off(net: Net, injection: Injection) -> None:
    (call(net, injection, 6, images=1) + call(net, injection, 6, images=1, enabled=False, seed=6)).backward()


def separate_in_order(net: Net, injection: Injection) -> None:
    losses = [call(net, injection, T, images=6 // T, seed=T) for T in (3, 2, 6)]
    for item in losses:
        item.backward()


def separate_reversed(net: Net, injection: Injection) -> None:
    losses = [call(net, injection, T, images=6 // T, seed=T) for T in (3, 2, 6)]
    for item in reversed(losses):
        item.backward()


def interleaved(net: Net, injection: Injection) -> None:
    first = call(net, injection, 3)
    second = call(net, injection, 2, images=3, seed=6)
    second.backward()
    third = call(net, injection, 6, images=1, seed=7)
    first.backward()
    third.backward()


def inside_another_scope(net: Net, injection: Injection) -> None:
    first = call(net, injection, 3)
    with injection.frames(2):
        first.backward()


def chained(net: Net, injection: Injection) -> None:
    first = call(net, injection, 3)
    with injection.frames(2):
        loss(net(frames(3, 2, seed=6) * (1 + first.tanh())), 6).backward()


def nested_scopes(net: Net, injection: Injection) -> None:
    with injection.frames(3):
        with injection.frames(2):
            inner = net(frames(3, 2, seed=6))
        outer = net.head(net.forward_features(frames(2, 3)).mean((2, 3)))  # no call of the root: nothing begins anew
    (loss(inner, 1) + loss(outer, 2)).backward()


def blocks_and_a_whole_call_inside_another_scope(net: Net, injection: Injection) -> None:
    """The recomputed call opens a scope of its own; when it ends, the blocks of other forwards are recomputed."""

    def whole(x: Tensor) -> Tensor:
        with injection.frames(6):
            return net(x)

    x = frames(1, 6, seed=7).requires_grad_()
    first = call(net, injection, 3)
    second = checkpoint(whole, x, use_reentrant=net.checkpointing != "saved") if net.checkpointing else whole(x)
    with injection.frames(2):
        (first + loss(second, 4)).backward()


def from_a_feature(net: Net, injection: Injection) -> None:
    """The output is never used: backward starts at a tensor that some other hook has caught."""
    caught: list[Tensor] = []
    handle = net.blocks[2].register_forward_hook(lambda module, args, output: caught.append(output))
    call(net, injection, 3)
    handle.remove()
    feature = caught[0]
    call(net, injection, 2, images=3, seed=6)
    (loss(feature, 8) + 0 * sum(p.sum() for p in net.head.parameters())).backward()


CASES = [
    one,
    other_forward_between,
    switched_off_between,
    joint,
    joint_other_order,
    joint_with_off,
    separate_in_order,
    separate_reversed,
    interleaved,
    inside_another_scope,
    chained,
    nested_scopes,
    blocks_and_a_whole_call_inside_another_scope,
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_gradients_are_those_without_checkpointing(case: Case, mode: str) -> None:
    assert_recomputed_alike(case, mode)


def test_a_backward_from_a_caught_feature() -> None:
    assert_recomputed_alike(from_a_feature, "saved")


@pytest.mark.parametrize("mode", MODES)
def test_the_cases_would_notice_another_number_of_frames(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = gradients(other_forward_between, mode, "tsm")
    latest = FrameState(6, 6, True)
    monkeypatch.setattr(ForwardLog, "find", lambda self: latest)
    wrong = gradients(other_forward_between, mode, "tsm")
    errors = [float((a - b).norm() / b.norm()) for a, b in zip(wrong, right, strict=True)]
    assert max(errors) > 0.1, errors


@pytest.mark.parametrize("reentrant", [True, False])
def test_the_whole_backbone_and_the_whole_call_can_be_checkpointed(reentrant: bool) -> None:
    def backbone_alone(net: Net, injection: Injection) -> None:
        x, y = frames(2, 3).requires_grad_(), frames(3, 2).requires_grad_()
        with injection.frames(3):
            first = checkpoint(net, x, use_reentrant=reentrant) if net.checkpointing else net(x)
        with injection.frames(2):
            second = checkpoint(net, y, use_reentrant=reentrant) if net.checkpointing else net(y)
        (loss(first, 1) + loss(second, 2)).backward()

    def whole_call(net: Net, injection: Injection) -> None:
        def both(x: Tensor) -> Tensor:
            with injection.frames(3):
                first = net(x)
            with injection.frames(2):
                return net(x.flip(0)) + first

        x = frames(2, 3).requires_grad_()
        result = checkpoint(both, x, use_reentrant=reentrant) if net.checkpointing else both(x)
        call(net, injection, 6, images=1)
        loss(result, 3).backward()

    for case in (backbone_alone, whole_call):
        for mode in ("reentrant", "saved"):
            assert_recomputed_alike(case, mode)


@pytest.mark.parametrize("fusion", ["tsm", "gsf", "conv3d"])
@pytest.mark.parametrize("mode", ["reentrant", "saved"])
def test_every_placement_is_recomputed(fusion: str, mode: str) -> None:
    assert_recomputed_alike(joint, mode, fusion)


def test_a_graph_without_a_known_forward_is_refused_in_backward() -> None:
    net, injection = build(None)
    x = torch.ones(1, requires_grad=True)

    class CallsTheBackbone(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            net(frames(2, 3))
            return gradient

    call(net, injection, 3).backward()
    with pytest.raises(StateError, match="outside of its wrapper"):
        CallsTheBackbone.apply(x).backward()
