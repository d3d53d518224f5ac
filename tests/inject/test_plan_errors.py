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


def test_no_input_size_is_known():
    with pytest.raises(InputError, match=r"no input size is known for Sequential.*input_size=\(C, H, W\)"):
        plan(small())


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


@pytest.mark.parametrize("size", [(3, 24), (3, 24, 0), (3, 24, 40.0), 24, "abc", (True, 24, 40)])
def test_sizes_that_are_none(size):
    with pytest.raises(InputError, match="three positive whole numbers"):
        plan(small(), input_size=size)


@pytest.mark.parametrize(
    ("example", "error", "message"),
    [
        (torch.zeros(2, 10), InputError, r"shape \(2, 10\)"),
        (torch.zeros(2, 3, 24, 40, dtype=torch.uint8), InputTypeError, "convert and normalise"),
        ([1, 2], InputTypeError, "got a list"),
    ],
)
def test_examples_that_are_no_images(example, error, message):
    with pytest.raises(error, match=message):
        plan(small(), example_input=example)


def test_a_size_and_an_example_together():
    with pytest.raises(InputError, match="pass one of them"):
        plan(small(), input_size=SIZE, example_input=torch.zeros(1, *SIZE))


def test_a_forward_that_fails_names_its_failure():
    with pytest.raises(InputError, match=r"forward of Sequential failed on images of size \(1, 24, 40\).*input_size="):
        plan(small(), input_size=(1, 24, 40))


def test_a_backbone_that_needs_more_than_images():
    with pytest.raises(InputError, match=r"missing 1 required positional argument.*takes images alone"):
        plan(nn.Bilinear(3, 3, 4), input_size=SIZE)


def test_a_network_without_sites():
    with pytest.raises(InputError, match=r"no site was found.*name modules: sites="):
        plan(nn.Sequential(nn.Flatten(), nn.Linear(2880, 5)), input_size=SIZE)


def test_channels_too_few_everywhere():
    with pytest.raises(InputError, match=r"no site is left.*all 1 places.*3 channels are too few"):
        plan(nn.Sequential(conv(3, 3), conv(3, 3)), input_size=SIZE)


def test_an_unknown_fusion():
    with pytest.raises(InputError, match="fusion 'tms' is unknown"):
        plan(small(), fusion="tms", input_size=SIZE)


def test_what_is_no_backbone():
    with pytest.raises(InputTypeError, match=r"must be an nn\.Module"):
        plan(lambda x: x, input_size=SIZE)


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


def test_outputs_that_do_not_depend_on_the_images():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.zeros(x.shape[0], 5)

    with pytest.raises(InputError, match="nothing that Constant returns depends on the images"):
        plan(Constant(), input_size=SIZE)


def test_a_model_that_cannot_be_copied():
    class Locked(nn.Sequential):
        def __deepcopy__(self, memo):
            raise TypeError("cannot pickle a lock")

    with pytest.raises(UnsupportedError, match="Locked cannot be copied"):
        plan(Locked(conv(3, 16), conv(16, 16)), input_size=SIZE)


def test_a_regular_expression_selects_among_the_sites():
    assert plan(small(), input_size=SIZE, sites=r"1\.1\..*").names == ("1.1.body.1",)
    with pytest.raises(InputError, match=r"matches none of the 2 sites.*near: 1\.[01]\.body\.1.*pass a list of names"):
        plan(small(), input_size=SIZE, sites=r"1\.\d\.body")
    with pytest.raises(InputError, match=r"matches none of the 2 sites.*near: 1\.[01]\.body\.1"):
        plan(small(), input_size=SIZE, sites="body")
    with pytest.raises(InputError, match="is no regular expression"):
        plan(small(), input_size=SIZE, sites="(")


def test_a_predicate_selects_among_the_sites():
    net = Transformer()
    assert plan(net, fusion="tsm", input_size=SIZE, sites=lambda site: site.order == 0).names == ("attn",)
    with pytest.raises(InputError, match="it is for none of the 2"):
        plan(net, input_size=SIZE, sites=lambda site: site.channels > 1000)


def test_a_list_names_any_module_that_runs_in_the_order_of_execution():
    made = plan(small(), fusion="tsm", input_size=SIZE, sites=["1.1.body.1", "1.0.body.0"])
    assert [(site.name, site.rule) for site in made.sites] == [("1.0.body.0", "residual"), ("1.1.body.1", "named")]
    assert made.sites[1].block == "1.1.body"
    after = plan(small(), fusion="gsf", input_size=SIZE, sites=["0", "1.0"])
    assert [(s.name, s.placement, s.shape) for s in after.sites] == [
        ("0", "after", (1, 16, 6, 10)),
        ("1.0", "after", (1, 16, 6, 10)),
    ]


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        (["1.0.body.7"], r"names '1.0.body.7', but no module of that name runs.*near: 1\.0\.body\.[01]"),
        (["0"], "site '0' cannot be used: 3 channels are too few"),
        ([""], "names '', but no module"),
        ([], "an empty list"),
    ],
)
def test_names_that_cannot_be_sites(sites, message):
    with pytest.raises(InputError, match=message):
        plan(small(), fusion="tsm", input_size=SIZE, sites=sites)


def test_a_selection_of_another_type():
    with pytest.raises(InputTypeError, match="must be a regular expression"):
        plan(small(), input_size=SIZE, sites=3)


def test_a_selection_without_effect():
    with pytest.raises(InputError, match="sites='body' has no effect: fusion 'none' acts nowhere"):
        plan(small(), fusion="none", input_size=SIZE, sites="body")
