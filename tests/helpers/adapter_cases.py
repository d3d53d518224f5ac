"""Adapters around layers, computed as peft and others compute them, for the tests of the plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional


def conv_or_linear(layer: nn.Module, c_in: int, c_out: int, like: nn.Module | None = None) -> nn.Module:
    """A layer of the same kind without bias; a 1×1 convolution unless it is to be `like` one."""
    if isinstance(layer, nn.Linear):
        return nn.Linear(c_in, c_out, bias=False)
    geometry = (like.kernel_size, like.stride, like.padding) if isinstance(like, nn.Conv2d) else (1, 1, 0)
    return nn.Conv2d(c_in, c_out, *geometry, bias=False)


def widths(layer: nn.Module) -> tuple[int, int]:
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return layer.in_channels, layer.out_channels


class Adapter(nn.Module):
    """What all have in common: the layer as `base_layer`, and a switch."""

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.enabled = True

    def forward(self, x: Tensor) -> Tensor:
        return self.adapted(x) if self.enabled else self.base_layer(x)


class Lora(Adapter):
    """LoRA as in peft's LoraLayer: base(x) + B(A(dropout(x))) · scaling, below the adapter's name."""

    def __init__(self, base_layer: nn.Module, r: int = 2) -> None:
        super().__init__(base_layer)
        c_in, c_out = widths(base_layer)
        self.lora_dropout = nn.ModuleDict({"default": nn.Dropout(0.1)})
        self.lora_A = nn.ModuleDict({"default": conv_or_linear(base_layer, c_in, r, like=base_layer)})
        self.lora_B = nn.ModuleDict({"default": conv_or_linear(base_layer, r, c_out)})
        self.scaling = {"default": 2.0}
        nn.init.zeros_(self.lora_B["default"].weight)

    def adapted(self, x: Tensor) -> Tensor:
        result = self.base_layer(x)
        dtype = result.dtype
        for name, down in self.lora_A.items():
            x = x.to(down.weight.dtype)
            result = result + self.lora_B[name](down(self.lora_dropout[name](x))) * self.scaling[name]
        return result.to(dtype)

    def merge(self) -> None:
        """Add the adapter to the layer's weight, and go past it from then on."""
        down, up = self.lora_A["default"].weight, self.lora_B["default"].weight
        delta = torch.einsum("or,r...->o...", up.flatten(1), down) * self.scaling["default"]
        self.base_layer.weight.data += delta
        self.enabled = False


class Dora(Lora):
    """DoRA: the layer's own result is scaled too, by a learned magnitude per output."""

    def __init__(self, base_layer: nn.Module, r: int = 2) -> None:
        super().__init__(base_layer, r)
        shape = (-1,) if isinstance(base_layer, nn.Linear) else (1, -1, 1, 1)
        self.magnitude = nn.Parameter(base_layer.weight.detach().flatten(1).norm(dim=1).view(shape))

    def adapted(self, x: Tensor) -> Tensor:
        result, norm = self.base_layer(x), self.base_layer.weight.detach().flatten(1).norm(dim=1)
        scale = self.magnitude / norm.view(self.magnitude.shape)
        bias = self.base_layer.bias
        bare = result if bias is None else result - bias.view(self.magnitude.shape)
        low = self.lora_B["default"](self.lora_A["default"](x)) * self.scaling["default"]
        return result + (scale - 1) * bare + scale * low


class Vera(Adapter):
    """VeRA: frozen random projections, which are buffers, and learned scales between them."""

    def __init__(self, base_layer: nn.Module, r: int = 2) -> None:
        super().__init__(base_layer)
        c_in, c_out = widths(base_layer)
        self.register_buffer("A", torch.randn(r, c_in))
        self.register_buffer("B", torch.randn(c_out, r))
        self.lambda_d, self.lambda_b = nn.Parameter(torch.ones(r)), nn.Parameter(torch.zeros(c_out))

    def adapted(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + self.lambda_b * functional.linear(
            self.lambda_d * functional.linear(x, self.A), self.B
        )


class Ia3(Adapter):
    """IA³: a learned scale per channel, on what goes in or on what comes out."""

    def __init__(self, base_layer: nn.Module, feedforward: bool = False) -> None:
        super().__init__(base_layer)
        count = widths(base_layer)[0 if feedforward else 1]
        shape = (count,) if isinstance(base_layer, nn.Linear) else (1, count, 1, 1)
        self.ia3_l = nn.ParameterDict({"default": nn.Parameter(torch.ones(shape))})
        self.feedforward = feedforward

    def adapted(self, x: Tensor) -> Tensor:
        scale = self.ia3_l["default"]
        return self.base_layer(x * scale) if self.feedforward else self.base_layer(x) * scale


class Bottleneck(Adapter):
    """A bottleneck after the layer, with a shortcut of its own (Houlsby et al.), or beside it."""

    def __init__(self, base_layer: nn.Module, beside: bool = False) -> None:
        super().__init__(base_layer)
        c_in, c_out = widths(base_layer)
        like = base_layer if beside else None
        self.down = conv_or_linear(base_layer, c_in if beside else c_out, 2, like)
        self.up = conv_or_linear(base_layer, 2, c_out)
        self.beside = beside
        nn.init.zeros_(self.up.weight)

    def adapted(self, x: Tensor) -> Tensor:
        y = self.base_layer(x)
        return y + self.up(self.down(x if self.beside else y).relu())


class OneModule(nn.Module):
    """LoRA without a base layer, as loralib and torchtune write it: the weights of both are in one module."""

    def __init__(self, base_layer: nn.Linear, r: int = 2) -> None:
        super().__init__()
        self.weight, self.bias = base_layer.weight, base_layer.bias
        self.lora_a = nn.Linear(base_layer.in_features, r, bias=False)
        self.lora_b = nn.Linear(r, base_layer.out_features, bias=False)
        nn.init.zeros_(self.lora_b.weight)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias) + 2 * self.lora_b(self.lora_a(x))


def adapt(net: nn.Module, make: Callable[[nn.Module], nn.Module], names: Iterable[str]) -> nn.Module:
    """Put an adapter around every layer whose path ends with one of the names, but for the patch embedding of a ViT."""
    paths = [path for path, _ in net.named_modules() if path.rpartition(".")[2] in names]
    paths = [path for path in paths if not path.startswith("patch_embed")]
    assert paths
    for path in paths:
        parent, _, name = path.rpartition(".")
        holder = net.get_submodule(parent)
        setattr(holder, name, make(getattr(holder, name)))
    return net
