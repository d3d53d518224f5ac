"""Small networks with one trait each, and a numeric check of a plan's layouts, for the tests of the plan."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from image2video.inject import Plan

SIZE = (3, 24, 40)


def conv(c_in: int, c_out: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2)


class Residual(nn.Module):
    """`x + body(x)`, the sum written as `how` says."""

    def __init__(self, body: nn.Module, how: str = "add") -> None:
        super().__init__()
        self.body = body
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if self.how == "in place":
            y += x
            return y
        return x + y


def network(*blocks: nn.Module, channels: int = 16) -> nn.Sequential:
    """A stem with stride 4, the blocks, a head."""
    return nn.Sequential(
        nn.Conv2d(3, channels, 4, stride=4),
        nn.Sequential(*blocks),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, 5),
    )


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, 4, 1)
        self.expand = nn.Conv2d(4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.expand(self.reduce(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class Chunks(nn.Module):
    """Parallel convolutions on chunks of the channels, the first chunk untouched."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.a = conv(channels // 4, channels // 4, 3)
        self.b = conv(channels // 4, channels // 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        c = x.shape[1] // 4
        keep, a, b = x.split([2 * c, c, c], 1)
        return torch.cat([keep, self.a(a), self.b(b)], 1)


class Res2(nn.Module):
    """Sums inside of a branch of the same module."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv(channels, channels, 1)
        self.a = conv(channels // 2, channels // 2)
        self.b = conv(channels // 2, channels // 2)
        self.last = conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.first(x).chunk(2, 1)
        one = self.a(one)
        return x + self.last(torch.cat([one, self.b(one + two)], 1))


class RepUnit(nn.Module):
    """3×3 + 1×1 + identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.wide = conv(channels, channels, 3)
        self.point = conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.point(x) + self.wide(x)).relu()


class Attention(nn.Module):
    """Self-attention on `(B, L, C)` with input-dependent biases; `functional_weights` bypasses the modules."""

    def __init__(self, channels: int, functional_weights: bool = False) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(channels, channels) for _ in range(3))
        self.bias_a, self.bias_b = nn.Linear(channels, 12), nn.Linear(channels, 12)
        self.proj = nn.Linear(channels, channels)
        self.functional_weights = functional_weights

    def apply_linear(self, layer: nn.Linear, x: Tensor) -> Tensor:
        return functional.linear(x, layer.weight, layer.bias) if self.functional_weights else layer(x)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.apply_linear(layer, x) for layer in (self.q, self.k, self.v))
        bias = self.bias_a(q) @ self.bias_b(k).transpose(1, 2)
        attention = (q @ k.transpose(1, 2) + bias + self.bias_b(q) @ self.bias_a(k).transpose(1, 2)).softmax(-1)
        return self.apply_linear(self.proj, attention @ v)


class Transformer(nn.Module):
    """Patches, `prefix` extra tokens, blocks of attention and MLP."""

    def __init__(self, channels: int = 16, prefix: int = 1, functional_weights: bool = False) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, channels, 4, stride=4)
        self.tokens = nn.Parameter(torch.zeros(1, prefix, channels))
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attn = Attention(channels, functional_weights)
        self.mlp = nn.Sequential(nn.Linear(channels, 32), nn.GELU(), nn.Linear(32, channels))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.tokens.expand(x.shape[0], -1, -1), x], 1)
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Windows(nn.Module):
    """A residual whose branch works on windows, the windows outside or inside of the frames in dimension 0."""

    def __init__(self, channels: int = 16, frames_first: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 4, stride=4)
        self.fc1, self.fc2 = nn.Linear(channels, 32), nn.Linear(32, channels)
        self.frames_first = frames_first

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        B, H, W, C = x.shape
        split = x.view(B, H // 2, 2, W // 5, 5, C)
        order = (0, 1, 3, 2, 4, 5) if self.frames_first else (1, 3, 0, 2, 4, 5)
        windows = self.fc2(self.fc1(split.permute(order).reshape(-1, 10, C)).relu())
        shape = [split.shape[i] for i in order]
        back = windows.view(shape).permute([order.index(i) for i in range(6)]).reshape(B, H, W, C)
        return x + back


class Mixer(nn.Module):
    """Token mixing on `(B, C, L)`, channel mixing on `(B, L, C)`."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 4, stride=4)
        self.tokens1, self.tokens2 = nn.Linear(60, 24), nn.Linear(24, 60)
        self.channels1, self.channels2 = nn.Linear(channels, 24), nn.Linear(24, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = x + self.tokens2(self.tokens1(x.transpose(1, 2)).relu()).transpose(1, 2)
        return x + self.channels2(self.channels1(x).relu())


def check_frames_outermost(backbone: nn.Module, plan: Plan, count: int = 3) -> int:
    """Assert on real tensors that rows are frame-major and channels where the plan says; return the tensors checked."""
    backbone.eval()
    frames = torch.randn(count, *plan.input_size, generator=torch.Generator().manual_seed(0))
    together = _site_tensors(backbone, plan, frames)
    alone = [_site_tensors(backbone, plan, frame[None]) for frame in frames]
    checked = 0
    for site in plan.sites:
        for call, rows in enumerate(together[site.name]):
            assert rows.shape[0] == count * site.parts, site
            assert rows.shape[site.layout.channel_dim] == site.channels, site
            for index, single in enumerate(alone):
                own = rows[index * site.parts : (index + 1) * site.parts]
                torch.testing.assert_close(own, single[site.name][call], rtol=1e-3, atol=1e-4)
            checked += 1
    return checked


def _site_tensors(backbone: nn.Module, plan: Plan, frames: Tensor) -> dict[str, list[Tensor]]:
    seen: dict[str, list[Tensor]] = {site.name: [] for site in plan.sites}
    handles = []
    for site in plan.sites:
        module = backbone.get_submodule(site.name)

        def before(_: nn.Module, args: tuple[Any, ...], site: Any = site) -> None:
            seen[site.name].append(args[site.index].clone())

        def after(_: nn.Module, args: tuple[Any, ...], out: Any, site: Any = site) -> None:
            seen[site.name].append((out if isinstance(out, Tensor) else out[site.index]).clone())

        register = module.register_forward_hook if site.placement == "after" else module.register_forward_pre_hook
        handles.append(register(after if site.placement == "after" else before))
    with torch.no_grad():
        backbone(frames)
    for handle in handles:
        handle.remove()
    return seen
