"""What a plan refuses, and what it says then."""

import pytest
import timm
import torch
from plan_cases import SIZE, Residual, Transformer, conv, network
from torch import nn

from image2video.errors import InputError, InputTypeError, StateError, UnsupportedError
from image2video.inject import inject_, plan


def small() -> nn.Sequential:
    return network(*(Residual(nn.Sequential(conv(16, 16), conv(16, 16))) for _ in range(2)))


class Constant(nn.Module):
    def forward(self, x):
        return torch.zeros(x.shape[0], 5)


class Locked(nn.Sequential):
    def __deepcopy__(self, memo):
        raise TypeError("cannot pickle a lock")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: lambda x: x, InputTypeError, r"must be an nn\.Module"),
        (lambda: nn.Bilinear(3, 3, 4), InputError, "missing 1 required positional argument.*takes images alone"),
        (
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(2880, 5)),
            InputError,
            "no site was found.*name modules: sites=",
        ),
        (
            lambda: nn.Sequential(conv(3, 3), conv(3, 3)),
            InputError,
            "no site is left.*all 1 places.*3 channels are too",
        ),
        (Constant, InputError, "nothing that Constant returns depends on the images"),
        (lambda: Locked(conv(3, 16), conv(16, 16)), UnsupportedError, "Locked cannot be copied"),
    ],
)
def test_backbones_without_a_plan(make, error, message):
    with pytest.raises(error, match=message):
        plan(make(), input_size=SIZE)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, InputError, r"no input size is known for Sequential.*input_size=\(C, H, W\)"),
        *(
            ({"input_size": size}, InputError, "three positive whole numbers")
            for size in [(3, 24), (3, 24, 0), (3, 24, 40.0), 24, "abc", (True, 24, 40)]
        ),
        ({"input_size": (1, 24, 40)}, InputError, r"forward of Sequential failed on .* \(1, 24, 40\).*input_size="),
        ({"example_input": torch.zeros(2, 10)}, InputError, r"shape \(2, 10\)"),
        ({"example_input": torch.zeros(2, *SIZE).byte()}, InputTypeError, "convert and normalise"),
        ({"example_input": [1, 2]}, InputTypeError, "got a list"),
        ({"input_size": SIZE, "example_input": torch.zeros(1, *SIZE)}, InputError, "pass one of them"),
    ],
)
def test_images_without_a_plan(options, error, message):
    with pytest.raises(error, match=message):
        plan(small(), **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"fusion": "tms"}, InputError, "fusion 'tms' is unknown"),
        ({"sites": "("}, InputError, "is no regular expression"),
        ({"sites": "body"}, InputError, r"matches none of the 2 sites.*near: 1\.[01]\.body\.0"),
        ({"sites": r"1\.\d\.body"}, InputError, r"none of the 2 .*near: 1\.[01]\.body\.0.*pass a list of names"),
        ({"sites": lambda site: site.channels > 1000}, InputError, "it is for none of the 2"),
        ({"sites": ["1.0.body.7"]}, InputError, r"'1.0.body.7', but no module .* runs.*near: 1\.0\.body\.[01]"),
        ({"sites": ["0"]}, InputError, "site '0' cannot be used: 3 channels are too few"),
        ({"sites": [""]}, InputError, "names '', but no module"),
        ({"sites": []}, InputError, "an empty list"),
        ({"sites": 3}, InputTypeError, "must be a regular expression"),
        ({"sites": "body", "fusion": "none"}, InputError, "sites='body' has no effect: fusion 'none' acts nowhere"),
    ],
)
def test_selections_without_a_plan(options, error, message):
    with pytest.raises(error, match=message):
        plan(small(), **{"fusion": "tsm", "input_size": SIZE, **options})


def test_the_size_comes_from_the_config_the_argument_or_the_example():
    net = timm.create_model("test_resnet")
    assert plan(net).input_size == tuple(net.pretrained_cfg["input_size"])
    assert plan(net, input_size=(3, 64, 96)).input_size == (3, 64, 96)
    assert plan(net, example_input=torch.zeros(7, 3, 32, 96)).input_size == (3, 32, 96)
    assert plan(net, input_size=(3, 64, 96)).sites[0].shape != plan(net).sites[0].shape


def test_what_the_backbone_was_made_with_comes_before_its_config():
    assert plan(timm.create_model("test_resnet", in_chans=2)).input_size[0] == 2
    resized = timm.create_model("test_vit", img_size=(64, 96))
    assert resized.pretrained_cfg["input_size"][1:] != (64, 96)
    assert plan(resized).input_size == (3, 64, 96)
    resized.set_input_size((96, 64))
    assert plan(resized).input_size == (3, 96, 64)


def test_a_config_whose_size_is_none():
    net = small()
    net.pretrained_cfg = {"input_size": (24, 40)}
    with pytest.raises(InputError, match=r"three positive whole numbers \(C, H, W\), got \(24, 40\)"):
        plan(net)


def test_a_backbone_that_is_wrapped_or_compiled_already():
    net = small()
    injection = inject_(net, plan(net, input_size=SIZE))
    with pytest.raises(StateError, match="holds injected fusions already"):
        plan(net, input_size=SIZE)
    injection.remove_()
    assert plan(net, input_size=SIZE).sites
    net.compile(backend="eager")
    with pytest.raises(StateError, match="compiled already"):
        plan(net, input_size=SIZE)
    with pytest.raises(StateError, match="compiled already"):
        plan(torch.compile(small(), backend="eager"), input_size=SIZE)
    net = small()
    net[1].forward = torch.compile(net[1].forward, backend="eager")
    with pytest.raises(StateError, match="module '1' of the backbone is compiled already"):
        plan(net, input_size=SIZE)
    net = small()
    net[0].forward = torch.compiler.disable(net[0].forward)  # the opposite, which torch marks alike
    assert plan(net, input_size=SIZE).sites


def test_a_regular_expression_selects_among_the_sites():
    assert plan(small(), input_size=SIZE, sites=r"1\.1\..*").names == ("1.1.body.1",)


def test_a_predicate_selects_among_the_sites():
    net = Transformer()
    assert plan(net, fusion="tsm", input_size=SIZE, sites=lambda site: site.order == 0).names == ("attn",)


def test_a_list_names_any_module_that_runs_in_the_order_of_execution():
    made = plan(small(), fusion="tsm", input_size=SIZE, sites=["1.1.body.1", "1.0.body.0"])
    assert [(site.name, site.rule) for site in made.sites] == [("1.0.body.0", "residual"), ("1.1.body.1", "named")]
    assert made.sites[1].block == "1.1.body"
    after = plan(small(), fusion="gsf", input_size=SIZE, sites=["0", "1.0"])
    assert [(s.name, s.placement, s.shape) for s in after.sites] == [
        ("0", "after", (1, 16, 6, 10)),
        ("1.0", "after", (1, 16, 6, 10)),
    ]
