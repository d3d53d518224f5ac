"""What a trace may be asked for: how many images, what is done to the copy, and that nothing is computed."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from image2video.errors import InputError
from image2video.trace.sizes import nominal_size
from image2video.trace.trace import IMAGES, trace_forward

EXAMPLE = torch.zeros(1, 3, 6, 10)


@pytest.mark.parametrize("images", [1, IMAGES, 7])
def test_the_number_of_images(images: int) -> None:
    trace = trace_forward(nn.Conv2d(3, 4, 1), EXAMPLE, images=images)
    assert trace.values[0].shape == (images, 3, 6, 10)
    assert trace.values[trace.outputs[0][1]].shape == (images, 4, 6, 10)


def test_a_copy_is_prepared_and_the_backbone_is_not() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    prepared: list[nn.Module] = []

    def prepare(copy: nn.Module) -> None:
        prepared.append(copy)
        copy.get_submodule("1").register_forward_pre_hook(lambda _, args: (torch.cat([args[0]] * 3),))

    trace = trace_forward(net, EXAMPLE, prepare=prepare)
    assert trace.values[trace.outputs[0][1]].shape == (3 * IMAGES, 4, 6, 10)
    assert prepared[0] is not net
    assert not net[1]._forward_pre_hooks
    # What a hook makes of an input belongs to the call that it is a hook of.
    (call,) = (call for call in trace.calls if call.name == "1")
    assert trace.values[call.inputs[0]].shape[0] == IMAGES
    assert trace.values[call.start].op == "cat"


class LooksAtData(nn.Module):
    """Fails on fake tensors; counts its runs on real ones."""

    runs = 0

    def forward(self, x: Tensor) -> Tensor:
        if x.sum().item() > 1e9:
            return x
        type(self).runs += 1
        return x.sigmoid()


def test_nothing_is_computed_where_that_is_asked_for() -> None:
    with pytest.raises(InputError, match="failed on images of size"):
        trace_forward(LooksAtData(), EXAMPLE, real=False)
    assert LooksAtData.runs == 0
    assert not trace_forward(LooksAtData(), EXAMPLE).fake
    assert LooksAtData.runs == 1


def test_parameters_of_the_copy_are_parameters_with_their_need_of_gradients() -> None:
    class Asking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.moving = nn.Parameter(torch.ones(4, 3, 1, 1))
            self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)

        def forward(self, x: Tensor) -> Tensor:
            assert isinstance(self.moving, nn.Parameter)
            assert isinstance(self.frozen, nn.Parameter)
            assert (self.moving.requires_grad, self.frozen.requires_grad) == (True, False)
            return nn.functional.conv2d(x, self.moving) * self.frozen

    trace = trace_forward(Asking(), EXAMPLE, real=False)
    assert [value.op for value in trace.values if value.learned] == ["parameter", "parameter"]


def test_sizes_that_configs_tell():
    net = nn.Conv2d(3, 4, 1)
    for config, size in [
        ({"image_size": 32, "num_channels": 3}, (3, 32, 32)),
        ({"image_size": [32, 48], "num_channels": 1}, (1, 32, 48)),
        ({"image_size": {"height": 32, "width": 48}, "num_channels": 3}, (3, 32, 48)),
        ({"pretrained_cfg": {"input_size": [3, 40, 40]}, "image_size": 32, "num_channels": 3}, (3, 40, 40)),
        ({"pretrained_cfg": None, "image_size": None, "num_channels": 3}, None),
        ({"image_size": 0, "num_channels": 3}, None),
        ({"num_channels": 3}, None),
    ]:
        net.config = SimpleNamespace(**config)
        assert nominal_size(net) == size


@pytest.mark.parametrize("real", [True, False], ids=["real", "fake"])
def test_a_trace_draws_from_no_stream(real: bool) -> None:
    """Of Python, numpy or torch: a trace in the middle of training would change what is drawn after it."""

    class Drawing(nn.Module):
        """Drops paths by each stream, and branches on a value, which fake tensors cannot."""

        def forward(self, x: Tensor) -> Tensor:
            drawn = random.random() + np.random.random() + random.gauss(0, 1) + np.random.standard_normal()
            if real and x.sum() > 0:
                return x + torch.rand(())
            return x * drawn

    states = [random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist()]
    trace_forward(Drawing(), EXAMPLE, as_is=True)
    assert [random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist()] == states
