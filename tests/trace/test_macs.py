"""Multiply-accumulates of a trace are half of the operations that torch counts."""

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from image2video.trace.macs import macs_of
from image2video.trace.trace import IMAGES, trace_forward

SIZE = (3, 64, 96)


def traced(net: nn.Module, size: tuple[int, ...] = SIZE) -> int:
    """The count of a trace."""
    return sum(macs_of(value) for value in trace_forward(net, torch.zeros(1, *size)).values)


def counted(net: nn.Module, size: tuple[int, ...] = SIZE) -> int:
    """Half of torch's count of floating-point operations, for as many images as a trace has."""
    # torch counts no fused attention on a CPU.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(torch.randn(IMAGES, *size))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("test_resnet", {}),
        ("test_efficientnet", {}),
        ("test_convnext", {}),
        ("test_vit", {"img_size": SIZE[1:]}),
        ("test_mambaout", {}),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": SIZE[1:], "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4)},
        ),
    ],
)
def test_the_count_of_timm_models_is_that_of_torch(name: str, options: dict[str, object]) -> None:
    net = timm.create_model(name, **options)
    assert traced(net) == counted(net) > 1e5


class Every(nn.Module):
    """One operation of every kind that a torch counter knows."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(3, 6, 3, groups=3, stride=2)
        self.up = nn.ConvTranspose2d(6, 4, 3, stride=2)
        self.line = nn.Conv1d(4, 5, 3, padding=1)
        self.linear = nn.Linear(5, 7)
        self.weight = nn.Parameter(torch.randn(7, 3))
        self.bias = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.line(self.up(self.grouped(x)).flatten(2)).transpose(1, 2)
        x = self.linear(x)
        x = x.softmax(-1) @ x.transpose(1, 2) @ x
        x = torch.einsum("nlc,ncd->nld", x, x.transpose(1, 2) @ x)
        x = nn.functional.scaled_dot_product_attention(x, x, x)
        return torch.addmm(self.bias, x.mean(1), self.weight)


def test_every_kind_of_product_is_counted() -> None:
    net = Every()
    assert traced(net, (3, 9, 15)) == counted(net, (3, 9, 15)) > 0


def test_a_recurrent_layer_counts_each_matrix_at_every_step() -> None:
    class Scan(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 5, batch_first=True, bidirectional=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.lstm(x.flatten(2).transpose(1, 2))[0]

    places, both_ways, gates = 4 * 6, 2, 4 * 5
    assert traced(Scan(), (3, 4, 6)) == IMAGES * places * both_ways * gates * (3 + 5)


def test_what_does_not_depend_on_the_images_counts_nothing() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.bias(torch.ones(1, 4))[:, :, None, None]

    assert traced(Table()) == 0
