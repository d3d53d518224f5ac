"""The theoretical field: Eq. 8 for chains, and read off modules."""

import math

import hypothesis.strategies as st
import pytest
import timm
import torch
from hypothesis import given, settings
from rf_cases import Residual, TinyNet, chain_model, facts, layers, same_facts, wrapped
from torch import nn

from image2video.errors import InputError, InputTypeError, UnsupportedError
from image2video.integrations import small_segmentors  # noqa: F401 (registers small_fcn)
from image2video.receptive_field import Field, Layer, theoretical


def test_the_paper_equation_by_hand() -> None:
    field = theoretical([Layer(7, 2, padding=3), Layer(3, 2, padding=1), Layer(3, padding=1), Layer(3, padding=1)])
    assert field.size == (7 + 2 * 2 + 2 * 4 + 2 * 4,) * 2 == (27, 27)
    assert field.stride == (4, 4)
    assert field.offset == (0.5, 0.5)  # kernel // 2 of padding keeps the centres on the pixels' own
    assert field.box((2, 3)) == (8.5 - 13.5, 12.5 - 13.5, 8.5 + 13.5, 12.5 + 13.5)
    assert field.box((2, 3), (20, 20)) == (0, 0, 20, 20)


def test_rectangles_dilation_and_no_padding() -> None:
    field = theoretical([((3, 5), (1, 2), (2, 1), (0, 2)), (2, 3)])
    assert field.size == (1 + 2 * 2 + 1, 1 + 4 + 2)
    assert field.stride == (3, 6)
    assert field.offset == (0.5 + 2 + 0.5, 0.5 + (2 - 2) + 0.5 * 2)
    assert theoretical([]) == Field((1, 1), (1, 1), (0.5, 0.5), layers=())


@given(st.lists(layers(5), max_size=6))
@settings(max_examples=50, deadline=None)
def test_every_chain_is_the_equation(chain: list[Layer]) -> None:
    field = theoretical(chain)
    for axis in (0, 1):
        terms, jump = 1, 1
        for item in chain:
            terms += item.dilation[axis] * (item.kernel[axis] - 1) * jump
            jump *= item.stride[axis]
        assert field.size[axis] == terms
        assert field.stride[axis] == jump == math.prod(item.stride[axis] for item in chain)


@given(st.lists(layers(), min_size=1, max_size=3))
@settings(max_examples=15, deadline=None)
def test_a_module_that_is_a_chain_has_the_field_of_the_chain(chain: list[Layer]) -> None:
    traced, counted = theoretical(chain_model(chain), input_size=(2, 40, 44)), theoretical(chain)
    assert (traced.size, traced.stride, traced.offset) == (counted.size, counted.stride, counted.offset)
    assert traced.input_size == (40, 44)


def test_pixels_leave_out_the_holes_of_dilation_and_what_borders_lose() -> None:
    mask = theoretical([Layer(3, dilation=2)]).pixels((1, 2), (8, 9))
    assert mask.nonzero().tolist() == [[y, x] for y in (1, 3, 5) for x in (2, 4, 6)]
    # 8 pixels give units over 0…2 and 3…5; the second layer's tap on a third unit is padding, so 6 and 7 stay unseen.
    lost = theoretical([Layer(3, 3), Layer(3, padding=1)])
    assert lost.box((1, 1), (8, 8)) == (0, 0, 8, 8)
    assert lost.pixels((1, 1), (8, 8)).any(0).nonzero().flatten().tolist() == list(range(6))


def _longest_path(model: nn.Module) -> list[Layer]:
    """The layers on the way through all residual branches of a timm ResNet."""
    chain = [Layer(7, 2, padding=3), Layer(3, 2, padding=1)]
    for name, module in model.named_modules():
        if name.startswith("layer") and isinstance(module, nn.Conv2d) and "downsample" not in name:
            chain.append(Layer(module.kernel_size, module.stride, module.dilation, module.padding))
    return chain


@pytest.mark.parametrize(("name", "size"), [("resnet18", 435), ("resnet50", 427)])
def test_a_timm_resnet_has_the_field_of_its_longest_path(name: str, size: int) -> None:
    # ResNet-50 has 427 where the 3×3 convolution has the stride, as in timm; 483 is that of stride on the first 1×1.
    with torch.device("meta"):
        model = timm.create_model(name)
    field = theoretical(model, layer="layer4", input_size=(3, 96, 128))
    by_hand = theoretical(_longest_path(model))
    assert field.size == by_hand.size == (size, size)
    assert (field.stride, field.offset) == (by_hand.stride, by_hand.offset) == ((32, 32), (0.5, 0.5))
    assert not field.whole


def test_paths_that_lie_beside_each_other_give_the_rectangle_of_both() -> None:
    field = theoretical(Residual(2, 2), input_size=(2, 16, 20))
    # The branch covers −3 … 4 of unit 0, the pooling 0 … 2.
    assert field.box((0, 0)) == (-3, -3, 4, 4)
    wide = nn.Sequential(nn.ZeroPad2d((4, 0, 0, 0)), nn.Conv2d(2, 2, 1))
    assert theoretical(wide, input_size=(2, 16, 20)).box((0, 4)) == (0, 0, 1, 1)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("test_resnet", "pool"), ("test_vit", "attention in blocks.0.attn"), ("test_efficientnet", "se")],
)
def test_global_layers_see_the_whole_image_and_are_named(name: str, reason: str) -> None:
    model = timm.create_model(name)
    field = theoretical(model, input_size=(3, 160, 160))
    assert field.whole
    assert reason in field.reason
    assert field.box((0, 0)) == field.box((3, 4)) == (0, 0, 160, 160)
    assert "whole image" in str(field)


def test_same_padding_of_an_even_reach_pads_less_ahead() -> None:
    conv = nn.Conv2d(2, 2, (4, 2), padding="same", dilation=(1, 3))
    assert theoretical(conv, input_size=(2, 16, 20)).box((5, 5)) == (4, 4, 8, 8)


def test_a_segmentor_has_a_field_where_two_maps_meet() -> None:
    model = timm.create_model("small_fcn")
    field = theoretical(model, input_size=(3, 48, 64))
    assert not field.whole
    assert field.stride == theoretical(model, layer="layer2", input_size=(3, 48, 64)).stride
    assert field.size[0] > theoretical(model, layer="layer3", input_size=(3, 48, 64)).size[0]


def test_a_patch_embedding_is_a_layer_like_any_other() -> None:
    field = theoretical(timm.create_model("test_vit"), layer="patch_embed", input_size=(3, 160, 160))
    assert (field.size, field.stride, field.whole) == ((16, 16), (16, 16), False)


def test_a_wrapped_model_has_the_field_of_its_backbone_in_one_frame() -> None:
    model = wrapped("gsf")
    bare = theoretical(TinyNet(), layer="layer2", input_size=(3, 24, 32))
    before = facts(model)
    assert theoretical(model, layer="layer2", input_size=(3, 24, 32)) == bare
    assert theoretical(model, layer="backbone.layer2", input_size=(3, 24, 32)) == bare
    assert same_facts(before, facts(model))


class _Roll(nn.Module):
    def forward(self, images):
        return images.roll(3, dims=-1)


class _Constant(nn.Module):
    def forward(self, images):
        return torch.ones(images.shape[0], 2, device=images.device)


def test_what_the_rules_do_not_know_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), _Roll(), nn.Conv2d(4, 4, 3))
    with pytest.raises(UnsupportedError, match=r"roll in 1 is not known.*support\("):
        theoretical(model, input_size=(3, 16, 16))
    assert theoretical(model, layer="0", input_size=(3, 16, 16)).size == (3, 3)


def test_bad_arguments_say_what_is_needed() -> None:
    with pytest.raises(InputError, match=r"no module 'layer9' runs.*near: layer"):
        theoretical(TinyNet(), layer="layer9", input_size=(3, 24, 24))
    with pytest.raises(InputError, match="depends on the images"):
        theoretical(_Constant(), input_size=(3, 24, 24))
    with pytest.raises(InputError, match="stride must be at least 1, got 0"):
        Layer(3, 0)
    with pytest.raises(InputTypeError, match="kernel must be an integer"):
        Layer(2.5)  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="a layer must be Layer"):
        theoretical(["3x3"])  # type: ignore[list-item]
    with pytest.raises(InputTypeError, match="a chain must be a sequence"):
        theoretical("3x3")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="names a layer of a module"):
        theoretical([Layer(3)], layer="layer4")
    with pytest.raises(InputError, match=r"unit 9 along axis 1 is outside the map, which has 6 units"):
        theoretical([Layer(3)]).pixels((0, 9), (8, 8))
    with pytest.raises(InputError, match=r"layer 1 reaches over 5 units, its input has 3"):
        theoretical([Layer(3, 3), Layer(5)]).pixels((0, 0), (9, 9))
