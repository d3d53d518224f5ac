"""The rule of sites, on networks with one trait each."""

import pytest
import torch
from decoder_nets import Branch, EncoderDecoder
from plan_cases import (
    SIZE,
    Chunks,
    RepUnit,
    Res2,
    Residual,
    SqueezeExcite,
    Transformer,
    check_frames_outermost,
    conv,
    network,
)
from torch import Tensor, nn
from torch.nn import functional

from image2video.inject import plan


def names(net: nn.Module, fusion: str) -> list[str]:
    made = plan(net, fusion=fusion, input_size=SIZE)
    assert check_frames_outermost(net, made) >= len(made.sites)
    return list(made.names)


def pair(channels: int = 16) -> nn.Sequential:
    return nn.Sequential(conv(channels, 24), nn.ReLU(inplace=True), conv(24, channels), nn.BatchNorm2d(channels))


@pytest.mark.parametrize("how", ["add", "in place"])
def test_tsm_before_the_first_and_gsf_after_the_last_weight_of_a_branch(how):
    net = network(Residual(pair(), how), Residual(pair(), how))
    assert names(net, "tsm") == ["1.0.body.0", "1.1.body.0"]
    assert names(net, "gsf") == names(net, "gsm") == ["1.0.body.2", "1.1.body.2"]
    for site in plan(net, fusion="gsf", input_size=SIZE).sites:
        assert (site.rule, site.placement, site.channels, site.parts, site.calls) == ("residual", "after", 16, 1, 1)
        assert site.shape == (1, 16, 6, 10)


def test_a_convolution_on_the_shortcut_is_no_branch():
    class Down(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.shortcut = pair(), conv(16, 16, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.shortcut(x) + self.body(x)

    assert names(network(Down(), Residual(pair())), "tsm") == ["1.0.body.0", "1.1.body.0"]


def test_gates_are_no_sites():
    net = network(Residual(nn.Sequential(*pair(), SqueezeExcite(16))), Residual(pair()))
    assert names(net, "gsf") == ["1.0.body.2", "1.1.body.2"]


def test_sums_within_one_module_leave_the_outer_one():
    net = network(Res2(16), Res2(16))
    assert names(net, "tsm") == ["1.0.first", "1.1.first"]
    assert names(net, "gsf") == ["1.0.last", "1.1.last"]


def test_parallel_convolutions_with_an_identity_are_one_branch():
    assert names(network(RepUnit(16), RepUnit(16)), "tsm") == ["1.0.point", "1.0.wide", "1.1.point", "1.1.wide"]


def test_an_inner_identity_of_single_weights_loses_to_the_block_around_it():
    block = Residual(nn.Sequential(Residual(conv(16, 16)), conv(16, 16, 1)))
    assert names(network(block, Residual(pair())), "gsf") == ["1.0.body.1", "1.1.body.2"]


def test_a_lone_inner_residual_loses_and_several_win():
    lone = Residual(nn.Sequential(Residual(pair()), conv(16, 16)))
    assert names(network(lone, Residual(pair())), "tsm")[:1] == ["1.0.body"]
    assert names(network(lone, Residual(pair())), "gsf")[:1] == ["1.0.body.1"]
    several = Residual(nn.Sequential(Residual(pair()), Residual(pair()), conv(16, 16)))
    assert names(network(several), "gsf") == ["1.0.body.0.body.2", "1.0.body.1.body.2"]


def test_parallel_first_convolutions_on_chunks_share_the_hook_on_their_module():
    net = network(Residual(Chunks(16)), Residual(nn.Sequential(Chunks(16), conv(16, 16, 1))))
    sites = plan(net, fusion="tsm", input_size=SIZE).sites
    assert [(s.name, s.channels) for s in sites] == [("1.0.body", 16), ("1.1.body", 16)]
    assert names(net, "gsf") == ["1.0.body", "1.1.body.1"]


def test_attention_and_mlp_are_sites_and_attention_biases_are_not():
    net = Transformer()
    assert names(net, "tsm") == ["attn", "mlp.0"]
    assert names(net, "gsf") == ["attn.proj", "mlp.2"]
    orders = [site.order for site in plan(net, input_size=SIZE).sites]
    assert orders == [0, 1]


def test_weights_used_without_their_module_hook_the_module_that_runs():
    net = Transformer(functional_weights=True)
    assert names(net, "tsm") == ["attn", "mlp.0"]
    assert names(net, "gsf") == ["attn", "mlp.2"]


def test_a_module_that_is_called_twice_is_one_site():
    body = pair()
    made = plan(network(Residual(body), Residual(body), Residual(pair())), fusion="gsf", input_size=SIZE)
    assert [(site.name, site.calls) for site in made.sites] == [("1.0.body.2", 2), ("1.2.body.2", 1)]


def test_without_residuals_every_wide_convolution_but_the_first():
    net = nn.Sequential(conv(3, 16), nn.ReLU(), conv(16, 16, 1), conv(16, 24), nn.MaxPool2d(2), conv(24, 16, 5))
    assert names(net, "tsm") == names(net, "gsf") == ["3", "5"]
    assert {site.rule for site in plan(net, input_size=SIZE).sites} == {"fallback"}


def test_one_residual_among_many_map_sizes_gets_the_fallback_beside_it():
    stages = [nn.Conv2d(16, 16, 3, stride=2, padding=1) for _ in range(3)]
    net = nn.Sequential(conv(3, 16), stages[0], Residual(pair()), stages[1], stages[2])
    made = plan(net, fusion="tsm", input_size=SIZE)
    assert [(site.name, site.rule) for site in made.sites] == [
        ("1", "fallback"),
        ("2.body.0", "residual"),
        ("3", "fallback"),
        ("4", "fallback"),
    ]


def test_a_fusion_for_every_convolution_takes_the_stem_and_refuses_what_computes_otherwise():
    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)

    net = network(Residual(pair()), Standardised(16, 16, 3, padding=1), conv(16, 16, 1))
    made = plan(net, fusion="conv3d", input_size=SIZE)
    assert [(s.name, s.placement, s.rule, s.channels) for s in made.sites] == [
        ("0", "beside", "every-conv", 3),
        ("1.0.body.0", "beside", "every-conv", 16),
        ("1.0.body.2", "beside", "every-conv", 24),
    ]
    assert [left_out.name for left_out in made.skipped] == ["1.1"]
    assert "Standardised" in made.skipped[0].reason


def test_no_fusion_has_no_sites():
    made = plan(network(Residual(pair())), fusion="none", input_size=SIZE)
    assert made.sites == ()


def test_what_other_streams_add_is_no_part_of_a_branch():
    class Streams(nn.Module):
        """Two streams that exchange their branches' outputs."""

        def __init__(self):
            super().__init__()
            self.left, self.right = conv(16, 16, 1), conv(16, 16, 1)
            self.a, self.b = nn.ModuleList([pair(), pair()]), nn.ModuleList([pair(), pair()])

        def forward(self, x: Tensor) -> Tensor:
            x, y = self.left(x), self.right(x)
            for a, b in zip(self.a, self.b, strict=True):
                from_a, from_b = a(x), b(y)
                x, y = x + (from_a + from_b), y + (from_b + from_a)
            return x + y.mean() * 0

    assert names(network(Streams()), "tsm") == ["1.0.a.0.0", "1.0.b.0.0", "1.0.a.1.0", "1.0.b.1.0"]


class Bare(nn.Module):
    """Weights without modules, in the module that adds; `norm` and `drop` are the only boundaries of the branch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm2d(16), nn.Dropout(0.1)
        self.a, self.b = (nn.Parameter(torch.randn(16, 16, 3, 3) / 12) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.conv2d(self.norm(x), self.a, padding=1).relu()
        return x + self.drop(functional.conv2d(y, self.b, padding=1))


def test_weights_of_the_module_that_adds_are_reached_through_their_neighbours():
    assert names(network(Bare(), Bare()), "tsm") == ["1.0.norm", "1.1.norm"]
    assert names(network(Bare(), Bare()), "gsf") == ["1.0.drop", "1.1.drop"]


def test_a_branch_without_any_module_boundary_is_left_out_with_the_reason():
    class Closed(Bare):
        def forward(self, x: Tensor) -> Tensor:
            return x + functional.conv2d(functional.conv2d(x, self.a, padding=1).relu(), self.b, padding=1)

    made = plan(network(Closed(), Residual(pair())), fusion="tsm", input_size=SIZE)
    assert made.names == ("1.1.body.0",)
    assert [(left_out.name, left_out.block) for left_out in made.skipped] == [("1.0", "1.0")]
    assert "no hook reaches the branch alone" in made.skipped[0].reason


class SequenceFirst(nn.Module):
    """An attention that works on `(L, N, C)` inside of a module that takes and returns `(N, L, C)` and adds."""

    def __init__(self, dropout: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2)
        self.drop = nn.Dropout(0.1) if dropout else None

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).permute(2, 0, 1)
        out = self.attention(tokens, tokens, tokens)[0].transpose(0, 1)
        out = out if self.drop is None else self.drop(out)
        return x + out.transpose(1, 2).unflatten(2, x.shape[2:])


def test_an_output_whose_frames_are_not_outermost_is_taken_at_the_next_boundary():
    net = network(SequenceFirst(dropout=True), Residual(pair()))
    assert names(net, "gsf") == ["1.0.drop", "1.1.body.2"]
    (site, _) = plan(net, fusion="gsf", input_size=SIZE).sites
    assert (site.shape, site.layout.channel_dim, site.layout.grid) == ((1, 60, 16), -1, (6, 10))


def test_without_a_later_boundary_it_is_left_out_with_the_reason():
    made = plan(network(SequenceFirst(dropout=False), Residual(pair())), fusion="gsf", input_size=SIZE)
    assert made.names == ("1.1.body.2",)
    assert [left_out.name for left_out in made.skipped] == ["1.0.attention"]
    assert "not the outermost part" in made.skipped[0].reason


def test_a_sum_over_several_stages_is_no_block_of_the_fallback():
    class Pyramid(nn.Module):
        """Three stages without residuals, and a path that goes up again, added to an earlier map."""

        def __init__(self) -> None:
            super().__init__()
            self.stem = conv(3, 16)
            self.stages = nn.ModuleList([nn.Conv2d(16, 16, 3, stride=2, padding=1) for _ in range(3)])
            self.lateral, self.top = conv(16, 16, 1), conv(16, 16, 1)

        def forward(self, x: Tensor) -> Tensor:
            maps = [self.stem(x)]
            for stage in self.stages:
                maps.append(stage(maps[-1]))
            return self.lateral(maps[1]) + functional.interpolate(self.top(maps[3]), size=maps[1].shape[2:])

    made = plan(Pyramid(), fusion="tsm", input_size=SIZE)
    assert [(s.name, s.rule) for s in made.sites] == [(f"stages.{i}", "fallback") for i in range(3)]


def test_decoders_have_sites_only_where_they_are_asked_for():
    size = {"input_size": (8, 8, 12)}
    net = EncoderDecoder(nn.Sequential(Branch(), Branch()), nn.Sequential(Branch()))
    found = plan(net, **size)
    assert list(found.names) == ["encoder.0.conv", "encoder.1.conv"]
    assert [(place.name, place.reason) for place in found.skipped] == [
        ("decoder.0.conv", "in the decoder, where no fusion acts unless sites= selects it")
    ]
    assert list(plan(net, sites=r"decoder\..*", **size).names) == ["decoder.0.conv"]
    assert len(plan(net, sites=r".*", **size).names) == 3
    assert list(plan(EncoderDecoder(nn.Identity(), Branch()), **size).names) == ["decoder.conv"]
    assert len(plan(nn.Sequential(net), **size).names) == 3  # the rule is about the network that is wrapped
