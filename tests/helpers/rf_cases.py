"""Small networks that the tests of receptive fields share."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from image2video import VideoWrap
from image2video.receptive_field import Layer

SIZE = (26, 34)


def layers(max_kernel: int = 3) -> st.SearchStrategy[Layer]:
    """Layers with rectangular kernels, strides, dilations and paddings."""

    def pair(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
        return st.tuples(st.integers(low, high), st.integers(low, high))

    return st.builds(Layer, pair(1, max_kernel), pair(1, 2), pair(1, 2), pair(0, 2))


def chain_model(chain: list[Layer], channels: int = 2, seed: int = 0) -> nn.Sequential:
    """Convolutions of these layers, with a derivative that is nowhere zero between them."""
    generator = torch.Generator().manual_seed(seed)
    modules: list[nn.Module] = []
    for item in chain:
        conv = nn.Conv2d(channels, channels, item.kernel, item.stride, item.padding, item.dilation)
        with torch.no_grad():
            for parameter in conv.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        modules += [conv, nn.Softplus()]
    return nn.Sequential(*modules)


class Residual(nn.Module):
    """A branch of two convolutions beside a shortcut by pooling, whose windows lie elsewhere."""

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.shortcut = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.act = nn.Softplus()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.conv2(self.act(self.conv1(x))))
        short = self.shortcut(x)
        return y[..., : short.shape[-2], : short.shape[-1]] + short


class TinyNet(nn.Module):
    """A stem, two residual stages, and a head: a vector, a map, or both in a dict."""

    output_fmt = "NCHW"

    def __init__(self, head: str = "vector", channels: int = 8, classes: int = 3, seed: int = 0) -> None:
        super().__init__()
        self.kind = head
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.layer1 = Residual(channels)
        self.layer2 = Residual(channels, 2)
        self.head = nn.Conv2d(channels, classes, 1)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                fan_in = parameter[0].numel()
                parameter.copy_(noise * (2 / fan_in) ** 0.5 if parameter.ndim > 1 else 1 + 0.1 * noise)

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor | list[Tensor]]:
        maps = self.head(self.layer2(self.layer1(self.norm(self.stem(images)))))
        if self.kind == "vector":
            return maps.mean((2, 3))
        return maps if self.kind == "map" else {"out": maps, "more": [maps.mean((2, 3)), maps[:, :1]]}


def wrapped(fusion: str = "gsf", genotype: str = "rotate(20) > translate_x(0.1)", T: int = 3, **options) -> VideoWrap:
    """A wrapped `TinyNet` in eval mode."""
    head, seed = options.pop("head", "vector"), options.pop("seed", 0)
    options = {"residual": False, "schedule": "from_zero", "padding": "zeros"} | options
    torch.manual_seed(seed)
    model = VideoWrap(TinyNet(head, seed=seed), fusion, genotype=genotype, T=T, input_size=(3, 24, 32), **options)
    return model.eval()


def noise(count: int = 4, size: tuple[int, int] = (20, 28), channels: int = 3, seed: int = 5, **options) -> Tensor:
    return torch.randn((count, channels, *size), generator=torch.Generator().manual_seed(seed), **options)


def facts(model: nn.Module) -> tuple:
    """All that must be as it was: values, modes, flags, hooks."""
    return (
        {name: value.clone() for name, value in model.state_dict().items()},
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()],
        [parameter.grad is None for parameter in model.parameters()],
    )


def same_facts(a: tuple, b: tuple) -> bool:
    return a[1:] == b[1:] and a[0].keys() == b[0].keys() and all(torch.equal(a[0][k], b[0][k]) for k in a[0])
