"""Which networks the helper of the tests takes for alike, and that they have one trace."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from traced_alike import kind

from image2video.errors import InputError
from image2video.inject import plan
from image2video.trace import trace as tracing

EXAMPLE = torch.zeros(1, 3, 8, 12)


class Shifted(nn.Module):
    """Has an attribute and a number of its own beside its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.keep, self.by = nn.Conv2d(3, 4, 3), True, torch.ones(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + self.by


def changed(change: Callable[[Shifted], object]) -> Shifted:
    net = Shifted()
    change(net)
    return net


def test_other_weights_are_alike() -> None:
    assert kind(Shifted(), EXAMPLE) == kind(Shifted(), EXAMPLE) is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda net: setattr(net, "keep", False),
        lambda net: setattr(net, "by", torch.zeros(1)),
        lambda net: setattr(net, "layer", nn.Conv2d(3, 4, 3, padding=1)),
        lambda net: setattr(net, "layer", nn.Conv2d(3, 5, 3)),
        lambda net: net.layer.requires_grad_(False),
        lambda net: net.double(),
        lambda net: net.eval(),
        lambda net: net.layer.to(memory_format=torch.channels_last),
        lambda net: setattr(net, "__class__", type("Shifted", (Shifted,), {"__module__": __name__})),
    ],
)
def test_whatever_a_forward_may_see_makes_another_kind(change: Callable[[Shifted], object]) -> None:
    assert kind(changed(change), EXAMPLE) != kind(Shifted(), EXAMPLE)


def test_other_images_and_other_forwards_make_another_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    known = kind(Shifted(), EXAMPLE)
    assert known != kind(Shifted(), torch.zeros(1, 3, 8, 8))
    assert known != kind(Shifted(), EXAMPLE.double())
    monkeypatch.setattr(Shifted, "forward", lambda net, x: net.layer(x))
    assert known != kind(Shifted(), EXAMPLE)


def test_what_cannot_be_pickled_is_of_no_kind() -> None:
    net = Shifted()
    net.layer.register_forward_hook(lambda *_: None)
    assert kind(net, EXAMPLE) is None


def test_networks_that_are_alike_have_one_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    first = plan(Shifted(), fusion="none", input_size=EXAMPLE.shape[1:])
    monkeypatch.setattr(tracing, "_copied", None)  # which every trace calls
    assert plan(Shifted(), fusion="none", input_size=EXAMPLE.shape[1:]) == first
    with pytest.raises(InputError):
        plan(changed(lambda net: setattr(net, "keep", False)), fusion="none", input_size=EXAMPLE.shape[1:])
