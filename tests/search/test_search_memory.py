"""Activation checkpointing in the search: the same steps, with less kept for the backward pass."""

import copy
from collections.abc import Callable

import pytest
import timm
import torch
from search_cases import bilevel, saved_bytes, tiny_network
from torch import Tensor, nn

import image2video.integrations.timm_cifar  # noqa: F401 (registers cifar_resnet18)
from image2video.search.optimise.bilevel import Bilevel
from image2video.search.optimise.memory import checkpoint_activations_, outer_blocks
from image2video.search.score.network import FrameNetwork, build_network

SIZE = (3, 16, 16)


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), 0.3

    def forward(self, x: Tensor) -> Tensor:
        return x + nn.functional.dropout(self.norm(self.conv(x)).relu(), self.drop, self.training)


def blocks_of_ones_own() -> nn.Module:
    stages = nn.Sequential(Residual(8), Residual(8), nn.Sequential(Residual(8)))
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), stages, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def timm_network() -> nn.Module:
    return timm.create_model("cifar_resnet8", num_classes=5)


def plain() -> nn.Module:
    return tiny_network(3, 5)


def run_of(backbone: nn.Module, checkpointing: bool, **options: object) -> Bilevel:
    network = seeded(lambda: build_network(backbone, "gsf", residual=True, input_size=SIZE)).train()
    if checkpointing:
        checkpoint_activations_(network)
    return bilevel(network, checkpoint_activations=checkpointing, lr=0.1, tau_lr=0.1, **options)


def batch(count: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, *SIZE, generator=generator), torch.arange(count) % 5


SECOND, PIECES = {"second_order": True}, {"accumulate": 2, "batch_size": 2}


@pytest.mark.parametrize(
    ("make", "options"),
    # The second order takes the steps of the first one, so that every network has it.
    [(plain, {}), (timm_network, SECOND), (blocks_of_ones_own, SECOND), (plain, SECOND), (timm_network, PIECES)],
)
def test_the_steps_are_the_same(make: Callable[[], nn.Module], options: dict) -> None:
    """Weights, τ, dropout, and the running statistics: a block that is computed again counts its batch once."""
    backbone, ends = seeded(make), []
    for checkpointing in (False, True):
        run = run_of(copy.deepcopy(backbone), checkpointing, **options)
        torch.manual_seed(2)
        losses = []
        for _ in range(2):
            losses += [run.tau_step(*batch(), batch()), run.weight_step(*batch())]
        ends.append(({**run.network.state_dict(), "tau": run.cell.tau.detach()}, torch.stack(losses)))
    assert torch.allclose(ends[0][1], ends[1][1], rtol=1e-6)
    assert any("running_mean" in name for name in ends[0][0])
    assert any("num_batches_tracked" in name and int(value) > 0 for name, value in ends[0][0].items())
    for name, value in ends[0][0].items():
        assert torch.allclose(ends[1][0][name], value, rtol=1e-4, atol=1e-6), name


def test_blocks_are_found() -> None:
    assert [type(block) for block in outer_blocks(blocks_of_ones_own())] == [Residual] * 3
    whole = plain()
    assert outer_blocks(whole) == [whole]


def test_a_timm_model_that_cannot_checkpoint_itself_is_checkpointed() -> None:
    class Refuses(nn.Sequential):
        def set_grad_checkpointing(self, enable: bool = True) -> None:
            assert not enable, "gradient checkpointing not supported"

    network = FrameNetwork(Refuses(nn.Conv2d(3, 4, 3), nn.Sequential(Residual(4))), None)
    checkpoint_activations_(network)
    assert "forward" in network.backbone[1][0].__dict__


def saved_by_a_tau_step(T: int, checkpointing: bool, name: str, space: str) -> int:
    """The bytes that autograd keeps for the backward pass, blocks' inputs included; weights do not count."""
    backbone = seeded(lambda: timm.create_model(name, num_classes=5, **({"img_size": 16} if "vit" in name else {})))
    run = run_of(backbone, checkpointing, T=T, space=space)
    images, labels = batch(1)

    def loss() -> Tensor:
        clip = run._seen(images, None, None, frozen=False).inputs
        return nn.functional.cross_entropy(run.bare(clip).view(1, T, -1).mean(1), labels)

    return saved_bytes(loss, but=run.bare.parameters())


@pytest.mark.parametrize(
    ("name", "space", "most"),
    [
        ("cifar_resnet18", "autoaugment13", 1.0),
        ("cifar_resnet18", "affine5", 1.02),  # a shallow network: its blocks' inputs are a quarter of all
        ("vit_tiny_patch16_224", "affine5", 0.5),
    ],
)
def test_32_frames_save_no_more_than_8_did(name: str, space: str, most: float) -> None:
    plain, checkpointed = (saved_by_a_tau_step(T, on, name, space) for T, on in ((8, False), (32, True)))
    assert checkpointed <= most * plain
