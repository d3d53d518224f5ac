"""Small backbones, and plans made by hand, for the tests of the injection."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from image2video.fusion import FusionConfig, resolve_fusion
from image2video.inject.api import Injection, inject_
from image2video.inject.plan import Plan, Site
from image2video.trace.layout import NCHW, Layout

CHANNELS = 8


class Block(nn.Module):
    """A residual block of two convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x).tanh())


class Net(nn.Module):
    """Frames to logits, in float64; `checkpointing` is None, "reentrant", "saved" (non-reentrant) or "nested"."""

    def __init__(self, blocks: int = 3, checkpointing: str | None = None) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(Block(CHANNELS) for _ in range(blocks))
        self.head = nn.Linear(CHANNELS, 5)
        self.checkpointing = checkpointing
        self.double()

    def stages(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = self.run(block, x)
        return x

    def run(self, block: nn.Module, x: Tensor) -> Tensor:
        if self.checkpointing is None:
            return block(x)
        return checkpoint(block, x, use_reentrant=self.checkpointing != "saved")

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.stem(x).tanh()
        if self.checkpointing == "nested":
            return checkpoint(self.stages, x, use_reentrant=True)
        return self.stages(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.forward_features(x).mean((2, 3)))


def seeded_net(seed: int = 0, **options: Any) -> Net:
    """Build a `Net` whose weights depend on the seed alone, with activations large enough for fusion to show."""
    net = Net(**options)
    randomise(net, seed)
    return net


def randomise(module: nn.Module, seed: int, scale: float = 0.3) -> None:
    """Draw every parameter anew: norms and residual scales that start at 0 or 1 would hide what fusion does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_((noise * scale).to(parameter))


def frames(images: int, T: int, seed: int = 1, size: tuple[int, int] = (10, 14)) -> Tensor:
    """Draw frames `(images·T, 3, H, W)` in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images * T, 3, *size, generator=generator, dtype=torch.float64)


def make_plan(
    fusion: str | FusionConfig, names: list[str], channels: int = CHANNELS, layout: Layout = NCHW, **fields: Any
) -> Plan:
    """Make a plan for these modules, all with the same channels and layout."""
    config = resolve_fusion(fusion)
    shape = (fields.get("parts", 1), channels, 5, 7)
    sites = [Site(name, config.placement, channels, layout, "named", "", shape, **fields) for name in names]
    return Plan(config, tuple(sites), (3, 10, 14), model="Net")


def block_plan(fusion: str | FusionConfig, blocks: int = 3, **fields: Any) -> Plan:
    """Make the plan of a `Net`: before the first convolution of each block, or at its last."""
    conv = "conv1" if resolve_fusion(fusion).placement == "before" else "conv2"
    return make_plan(fusion, [f"blocks.{i}.{conv}" for i in range(blocks)], **fields)


class Pair(nn.Module):
    """What a wrapper is, in its smallest form: a backbone and its injection below one parent."""

    def __init__(self, backbone: nn.Module, injection: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.fusion = injection

    def forward(self, x: Tensor, T: int, enabled: bool = True) -> Any:
        with self.fusion.frames(T, enabled=enabled):
            return self.backbone(x)


def snapshot(module: nn.Module) -> dict[str, Any]:
    """All that a caller could notice of a module's structure: attributes, children, hooks, values."""
    seen: dict[str, Any] = {}
    for name, child in module.named_modules():
        for key, value in vars(child).items():
            seen[f"{name}:{key}"] = (
                list(value) if isinstance(value, dict) else value if key == "training" else id(value)
            )
    seen["state"] = {key: value.clone() for key, value in module.state_dict().items()}
    return seen


def same_snapshot(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Compare two snapshots, the values bit for bit."""
    first, second = dict(first), dict(second)
    values, others = first.pop("state"), second.pop("state")
    equal = list(values) == list(others) and all(torch.equal(values[key], others[key]) for key in values)
    return equal and first == second


def injected(fusion: str, **options: Any) -> tuple[Net, Injection]:
    """Build a `Net` and inject a fusion, with random fusion parameters, at every block."""
    net = seeded_net()
    injection = inject_(net, block_plan(fusion), **options)
    randomise(injection, seed=3)
    return net, injection


def run(net: nn.Module, injection: Injection, x: Tensor, T: int, **options: bool) -> Tensor:
    """Call an injected backbone on frames."""
    with injection.frames(T, **options):
        return net(x)
