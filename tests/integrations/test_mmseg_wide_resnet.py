"""ResNet-38 of Wu et al.: its parameters, strides and dilations, under mmsegmentation's heads and with fusions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

pytest.importorskip("mmseg")

import mmseg_cases  # noqa: F401 (silences mmengine's log)
from mmseg.registry import MODELS

from image2video.errors import InputError
from image2video.functional import plan
from image2video.integrations.openmmlab import WideResNet38

# Stage by stage: units, the output channels of a unit's convolutions, their kernels (the published table).
TABLE = [
    (3, (128, 128), (3, 3)),
    (3, (256, 256), (3, 3)),
    (6, (512, 512), (3, 3)),
    (3, (512, 1024), (3, 3)),
    (1, (512, 1024, 2048), (1, 3, 1)),
    (1, (1024, 2048, 4096), (1, 3, 1)),
]


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def on_meta(**options: Any) -> WideResNet38:
    """The network at its full width, without memory."""
    with torch.device("meta"):
        return WideResNet38(**options)


def counted_by_hand() -> tuple[int, int]:
    """Parameters, and layers with weights on the longest path, from the table alone."""
    channels, total, depth = 64, 3 * 64 * 9, 1
    for units, widths, kernels in TABLE:
        for _ in range(units):
            start = channels
            for width, kernel in zip(widths, kernels, strict=True):
                total += 2 * channels + channels * width * kernel**2
                channels, depth = width, depth + 1
            total += start * channels if start != channels else 0
    return total + 2 * channels, depth


def test_parameters_are_those_of_the_published_network() -> None:
    model = on_meta()
    by_hand, depth = counted_by_hand()
    assert depth + 1 == 38, "with the linear classifier"
    assert count(model) == by_hand == 105_070_912
    # The authors' classifier for PASCAL VOC: 3×3 to 512 channels, 3×3 to the classes.
    assert round((by_hand + 4096 * 512 * 9 + 512 * 21 * 9) / 1e6) == 124
    # DeepLabV3+ on it (Zhu et al., CVPR 2019, and those who build on them): 137.1 million for Cityscapes.
    pyramid = 4096 * 256 * (1 + 9 * 3 + 1) + 2 * 256 * 5 + 5 * 256 * 256
    decoder = 128 * 48 + (256 + 48) * 256 * 9 + 256 * 256 * 9 + 2 * 256 * 2 + 256 * 19
    assert round((by_hand + pyramid + decoder) / 1e6, 1) == 137.1


@pytest.mark.parametrize(("stride", "strides"), [(8, (8, 8, 8, 8)), (16, (8, 16, 16, 16)), (32, (8, 16, 32, 32))])
def test_strides_and_channels(stride: int, strides: tuple[int, ...]) -> None:
    model = on_meta(output_stride=stride, out_indices=(0, 1, 2, 3, 4, 5, 6))
    maps = model(torch.zeros(2, 3, 96, 160, device="meta"))
    channels = (64, 128, 256, 512, 1024, 2048, 4096)
    expected = [(2, c, 96 // s, 160 // s) for c, s in zip(channels, (1, 2, 4, *strides), strict=True)]
    assert [tuple(one.shape) for one in maps] == expected


def dilations(model: nn.Module) -> list[list[tuple[int, ...]]]:
    """Of the 3×3 convolutions, unit by unit, for B5 … B7."""
    return [
        [tuple(c.dilation[0] for c in unit.convs if c.kernel_size == (3, 3)) for unit in stage]
        for stage in list(model.stages)[3:]
    ]


def test_dilation_takes_the_place_of_strides() -> None:
    assert dilations(on_meta()) == [[(1, 2), (2, 2), (2, 2)], [(4,)], [(4,)]]
    assert dilations(on_meta(output_stride=16)) == [[(1, 1)] * 3, [(2,)], [(2,)]]
    assert dilations(on_meta(output_stride=32)) == [[(1, 1)] * 3, [(1,)], [(1,)]]
    kept = [m for m in on_meta().modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)]
    assert len(kept) == 2 * 3, "the first convolution and the shortcut of B2, B3 and B4"


def test_dilating_reads_the_same_weights_on_a_finer_grid() -> None:
    """The dilated network computes at every eighth pixel, about, what the strided one does at its coarse pixels."""
    options = {"base_channels": 4, "out_indices": (4,), "norm_cfg": {"type": "BN"}}
    fine, coarse = WideResNet38(output_stride=8, **options), WideResNet38(output_stride=16, **options)
    fine.init_weights()
    coarse.load_state_dict(fine.state_dict())
    fine.eval()
    coarse.eval()
    x = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (fine(x)[0][..., ::2, ::2] - coarse(x)[0]).abs().max() < 1e-4


def test_units_act_before_their_convolutions() -> None:
    model = WideResNet38(base_channels=4)
    first, second = model.stages[0][0], model.stages[0][1]
    first.eval()
    second.eval()
    x = torch.randn(2, 4, 12, 20)
    with torch.no_grad():
        active = first.norms[0](x).relu()
        branch = first.convs[1](first.norms[1](first.convs[0](active)).relu())
        assert torch.allclose(first(x), first.shortcut(active) + branch, atol=1e-5)
        y = first(x)
        kept = y.clone()
        branch = second.convs[1](second.norms[1](second.convs[0](second.norms[0](y).relu())).relu())
        assert second.shortcut is None
        assert torch.allclose(second(y), kept + branch, atol=1e-5)
        assert torch.equal(y, kept), "the input is not written to"


def test_convolutions_start_by_hes_rule() -> None:
    model = WideResNet38(base_channels=16)
    model.init_weights()
    conv = model.stages[2][1].convs[0]
    fan_out = conv.out_channels * 9
    assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.02)
    assert all(torch.all(m.weight == 1) for m in model.modules() if isinstance(m, _BatchNorm))


def test_only_the_last_map_is_normalised() -> None:
    maps = WideResNet38(base_channels=4).eval()(torch.randn(1, 3, 32, 48))
    assert [one.min().item() >= 0 for one in maps] == [False, False, False, True]


def test_stages_that_nobody_asks_for_are_not_built() -> None:
    model = WideResNet38(base_channels=4, out_indices=(1, 3))
    maps = model(torch.randn(2, 3, 32, 48))
    assert [one.shape[1] for one in maps] == [8, 32]
    sum(one.sum() for one in maps).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_dropout_stands_before_the_last_convolution_of_the_bottlenecks() -> None:
    model = WideResNet38(base_channels=4)
    assert [unit.dropout.p for stage in list(model.stages)[4:] for unit in stage] == [0.3, 0.5]
    assert all(unit.dropout is None for stage in list(model.stages)[:4] for unit in stage)
    assert not any(isinstance(m, nn.Dropout2d) for m in WideResNet38(base_channels=4, dropout=(0, 0)).modules())


def test_norms_are_the_configs_and_stay_in_eval_mode() -> None:
    model = WideResNet38(base_channels=4, norm_cfg={"type": "GN", "num_groups": 2})
    assert not any(isinstance(m, _BatchNorm) for m in model.modules())
    frozen = WideResNet38(base_channels=4, norm_eval=True).train()
    assert frozen.training
    norms = [m for m in frozen.modules() if isinstance(m, _BatchNorm)]
    assert norms
    assert not any(norm.training for norm in norms)


def test_fusions_go_where_the_branches_begin_and_end() -> None:
    model = WideResNet38(base_channels=4)
    ends = plan(model, fusion="gsf", input_size=(3, 64, 96))
    units = [f"stages.{s}.{u}" for s, (count_, *_) in enumerate(TABLE) for u in range(count_)]
    last = {f"{unit}.convs.{len(model.get_submodule(unit).convs) - 1}" for unit in units}
    assert set(ends.names) == last
    starts = plan(model, fusion="tsm", input_size=(3, 64, 96))
    assert {site.placement for site in starts.sites} == {"before"}
    assert {name.rsplit(".", 2)[1] for name in starts.names} == {"convs"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_stride": 4}, r"output_stride must be one of \(8, 16, 32\), got 4"),
        ({"out_indices": (3, 7)}, r"out_indices must be ascending stages from 0 .* got \(3, 7\)"),
        ({"out_indices": (6, 3)}, "must be ascending"),
        ({"out_indices": ()}, "must be ascending"),
        ({"dropout": (0.3,)}, "must be the two rates of B6 and B7"),
    ],
)
def test_errors_name_the_key(options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MODELS.build({"type": "WideResNet38", "base_channels": 4, **options})
