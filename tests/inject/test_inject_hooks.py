"""The hooks at a site: which tensor they fuse, how many rows belong to a frame, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from inject_cases import frames, injected, make_plan, run
from torch import Tensor, nn

from image2video.errors import InputError
from image2video.inject.api import inject_
from image2video.trace.layout import NLC


def test_conv3d_adds_beside_the_convolution() -> None:
    net, injection = injected("conv3d")
    conv, fusion = net.blocks[0].conv2, injection.get_submodule("blocks.0.conv2.conv3d")
    x = torch.randn(6, 8, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with injection.frames(1):
        alone = conv(x)
    with injection.frames(3):
        torch.testing.assert_close(conv(x), fusion.combine(alone, x, 3, conv.bias))


def test_the_hook_computes_what_the_fusion_computes_at_its_place() -> None:
    net, injection = injected("gsf")
    block, fusion = net.blocks[1], injection.get_submodule("blocks.1.conv2.gsf")
    outputs: dict[str, Tensor] = {}
    block.register_forward_hook(lambda module, args, output: outputs.update(input=args[0], output=output))
    run(net, injection, frames(2, 3), 3)
    with injection.frames(1):
        inner = block.conv2(block.conv1(outputs["input"]).tanh())
    torch.testing.assert_close(outputs["output"], outputs["input"] + fusion(inner, 3))


class Windows(nn.Module):
    """Cuts each map into `count` windows along the width, which become rows, as window attention does."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.inner = nn.Linear(8, 8).double()

    def forward(self, x: Tensor) -> Tensor:
        rows = x.shape[0]
        windows = x.movedim(1, 3).unflatten(2, (self.count, -1)).movedim(2, 1).flatten(0, 1)
        inner = self.inner(windows.flatten(1, 2)).view_as(windows)
        return inner.unflatten(0, (rows, self.count)).movedim(1, 2).flatten(2, 3).movedim(3, 1)


@pytest.mark.parametrize("count", [2, 3])
def test_rows_per_frame_are_counted_at_run_time(count: int) -> None:
    """Planned with 2 windows, run with 2 and with 3: equal to fusing whole maps, since a shift knows no position."""
    windows, whole = Windows(count), Windows(1)
    whole.load_state_dict(windows.state_dict())
    x = torch.randn(6, 8, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    outputs = []
    for net, parts in ((windows, 2), (whole, 1)):
        injection = inject_(net, make_plan("tsm", ["inner"], layout=NLC, parts=parts))
        outputs.append(run(net, injection, x, 3))
    torch.testing.assert_close(*outputs)


def test_another_door_than_the_backbones_call_uses_the_planned_parts_or_the_given_rows() -> None:
    net, injection = injected("tsm")
    x = frames(2, 3)
    with injection.frames(3):
        planned = net.forward_features(x)
    with injection.frames(3, rows=6):
        given = net.forward_features(x)
    assert torch.equal(planned, given)
    with injection.frames(3), pytest.raises(InputError, match=r"site 'blocks.0.conv1': got 7 rows .* T = 3"):
        net.forward_features(frames(7, 1))
    with injection.frames(3, rows=4), pytest.raises(InputError, match=r"site 'blocks.0.conv1': got 6 rows .* B·T = 4"):
        net.forward_features(x)


def test_other_channels_at_run_time_are_refused() -> None:
    net = nn.Sequential(nn.Identity())
    injection = inject_(net, make_plan("tsm", ["0"]))
    with pytest.raises(InputError, match=r"site '0': .* with 8 channels, got .*\(6, 16, 5, 7\)"):
        run(net, injection, torch.zeros(6, 16, 5, 7), 3)


class TwoInputs(nn.Module):
    """Takes two tensors and returns them in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pick()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self.pair(x, x + 1), dim=1)


class Pick(nn.Module):
    """Returns its two inputs."""

    def forward(self, x: Tensor, y: Tensor) -> list[Tensor]:
        return [x, y]


@pytest.mark.parametrize("fusion", ["tsm", "gsm"])
def test_the_planned_input_or_output_item_is_fused_and_no_other(fusion: str) -> None:
    net = TwoInputs().double()
    injection = inject_(net, make_plan(fusion, ["pair"], index=1), residual=False).double()
    x = torch.randn(6, 8, 5, 7, generator=torch.Generator().manual_seed(0)).double()
    output = run(net, injection, x, 3)
    fused = injection.get_submodule(f"pair.{fusion}")
    assert torch.equal(output[:, :8], x)
    torch.testing.assert_close(output[:, 8:], fused(x + 1, 3))
    assert not torch.allclose(output[:, 8:], x + 1)
