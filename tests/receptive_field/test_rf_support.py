"""The support: measured dependence, against the equation and against the reshaped field."""

import hypothesis.strategies as st
import pytest
import shapely
import timm
import torch
from hypothesis import assume, given, settings
from rf_cases import SIZE, Residual, TinyNet, chain_model, facts, layers, noise, same_facts, wrapped
from torch import Tensor, nn

from image2video import VideoWrap
from image2video.errors import InputError
from image2video.receptive_field import Layer, Unit, effective, reshaped, support, theoretical
from image2video.receptive_field.field import map_sizes


def map_size(chain: list[Layer]) -> tuple[int, int]:
    rows, columns = (map_sizes(tuple(chain), axis, SIZE[axis])[-1] for axis in (0, 1))
    return rows, columns


def fits(chain: list[Layer]) -> bool:
    """Whether the layers leave a unit of an image of SIZE."""
    try:
        return min(map_size(chain)) > 0
    except InputError:
        return False


@given(st.lists(layers(), min_size=1, max_size=3).filter(fits), st.data())
@settings(max_examples=25, deadline=None)
def test_the_support_of_a_chain_is_the_equation(chain: list[Layer], data: st.DataObject) -> None:
    rows, columns = map_size(chain)
    unit = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    field = theoretical(chain)
    expected = field.pixels(unit, SIZE)
    assume(expected.any())  # else the unit lies on padding alone
    got = support(chain_model(chain), SIZE, Unit(position=unit, channel="all"))
    assert torch.equal(got.mask, expected)
    whole = field.box(unit)
    if field.box(unit, SIZE) == whole:  # no border: the rectangle of Eq. 8 itself
        assert got.box == whole
    mass = effective(chain_model(chain), noise(1, SIZE, channels=2), Unit(position=unit, channel="all")).map > 0
    assert not (mass & ~got.mask).any()
    assert got.frames is None
    assert (got.size, got.draws, got.unit.position) == (SIZE, 8, unit)


class _UpDown(nn.Module):
    """Two maps of different sizes that meet again, as in a segmentor."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, 2, padding=1)
        self.down = nn.Sequential(Residual(4, 2), nn.MaxPool2d(3, 1, padding=1))
        self.up = nn.ConvTranspose2d(8, 4, 4, 2, padding=1)
        self.mode = mode

    def forward(self, images: Tensor) -> Tensor:
        fine = self.first(nn.functional.pad(images, (1, 2, 0, 1)))
        options = {} if self.mode == "nearest" else {"align_corners": self.mode == "bicubic"}
        coarse = nn.functional.interpolate(self.down(fine), size=fine.shape[-2:], mode=self.mode, **options)
        return self.up(torch.cat([fine, coarse], 1))[:, :, 1:, 2:]


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_the_field_of_a_module_holds_its_support_and_that_the_mass(mode: str) -> None:
    torch.manual_seed(0)
    model = _UpDown(mode)
    field = theoretical(model, input_size=(3, 29, 37))
    assert not field.whole
    assert field.stride == (1, 1)
    for unit in ((0, 0), (14, 18), (27, 33)):
        the_unit = Unit(position=unit, channel="all")
        mask = support(model, (29, 37), the_unit).mask
        assert not (mask & ~field.pixels(unit, (29, 37))).any()
        mass = effective(model, noise(2, (29, 37)), the_unit).map > 0
        assert not (mass & ~mask).any()
        assert mass.sum() > 100


@pytest.mark.parametrize(("name", "layer"), [("test_resnet", "layer2"), ("test_convnext", "stages.1")])
def test_the_field_of_a_timm_network_holds_its_support(name: str, layer: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    field, size = theoretical(model, layer=layer, input_size=(3, 72, 88)), (72, 88)
    for position in ((1, 2), (4, 5)):
        got = support(model, size, Unit(layer, position=position), redraw=True)
        allowed = field.pixels(position, size)
        assert not (got.mask & ~allowed).any()
        assert got.area > 0.5 * allowed.sum()
        assert got.weights == "redrawn"


def test_frames_are_seen_apart_without_fusion_and_together_with_it() -> None:
    unit = Unit("layer1", frame=1)
    alone = support(wrapped("none", residual=False), SIZE, unit)
    bare = support(TinyNet(), SIZE, Unit("layer1"))
    assert alone.frames is not None
    assert [bool(frame.any()) for frame in alone.frames] == [False, True, False]
    assert torch.equal(alone.frames[1], bare.mask)
    fused = support(wrapped("tsm"), SIZE, unit)
    assert fused.frames is not None
    assert [bool(frame.any()) for frame in fused.frames] == [True, True, True]
    assert not (fused.frames & ~bare.mask).any()  # channels move along T only
    assert (alone.mask & ~fused.mask).sum() == 0
    assert fused.area > alone.area
    # GSF weights its channels by means over the plane, so every unit depends on every pixel.
    gated = support(wrapped("gsf"), SIZE, unit)
    assert gated.frames is not None
    assert gated.frames.all()


@pytest.mark.parametrize("genotype", ["rotate(25)", "scale(0.7) > translate_x(0.1)", "shear_y(20) > translate_y(-0.1)"])
def test_the_support_lies_within_the_reshaped_field(genotype: str) -> None:
    unit = Unit("layer1", frame=1)
    model = wrapped("tsm", genotype, T=3)
    got = support(model, SIZE, unit)
    position = got.unit.position
    assert isinstance(position, tuple)
    field = theoretical(model, layer="layer1", input_size=(3, *SIZE)).polygon(position, SIZE)
    union = reshaped(field, genotype, 3, image_size=SIZE).polygon.buffer(1.5)  # a frame's pixel reads its 4 neighbours
    y, x = got.mask.nonzero().T + 0.5
    assert shapely.contains_xy(union, x.numpy(), y.numpy()).all()
    assert got.area > 1.2 * support(model, SIZE, Unit("layer1", frame=0), tolerance=1.0 - 1e-9).area


def test_translations_by_whole_pixels_give_the_union_of_the_shifted_fields() -> None:
    torch.manual_seed(0)
    bare = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1))
    genotype = f"translate_x({2 / SIZE[1]}) > translate_y({-1 / SIZE[0]})"
    clip = {"genotype": genotype, "T": 3, "schedule": "from_zero", "padding": "zeros"}
    model = VideoWrap(bare, "tsm", residual=False, input_size=(3, *SIZE), **clip).eval()
    got = support(model, SIZE, Unit("1", frame=1, position=(13, 17)), tolerance=1e-9)
    field = theoretical([Layer(3, padding=1)] * 2).polygon((13, 17))
    union = reshaped(field, genotype, 3, image_size=SIZE)
    assert got.area == pytest.approx(union.area) == 25 * 3 - 2 * 3 * 4 - 1 * 3 + 1 * 3
    left, top, right, bottom = union.bounds
    assert got.box == pytest.approx((top, left, bottom, right))


def test_weights_as_they_are_and_redrawn() -> None:
    model = TinyNet()
    nn.init.zeros_(model.layer1.conv2.weight)  # the branch adds a constant
    narrow, wide = support(model, SIZE, Unit("layer1")), support(model, SIZE, Unit("layer1"), redraw=True)
    assert (narrow.box, wide.box) == ((12, 16, 15, 19), (10, 14, 17, 21))
    assert (narrow.weights, wide.weights) == ("as given", "redrawn")


def test_the_model_stays_as_it_is_and_a_seed_repeats() -> None:
    model = wrapped("gsf").train()
    model.backbone.stem.weight.requires_grad_(False)
    before, state = facts(model), torch.random.get_rng_state()
    first = support(model, SIZE, Unit("layer2", frame=0), seed=3)
    assert torch.equal(first.mask, support(model, SIZE, Unit("layer2", frame=0), seed=3).mask)
    assert same_facts(before, facts(model))
    assert torch.equal(state, torch.random.get_rng_state())


def test_fewer_than_eight_draws_are_refused() -> None:
    with pytest.raises(InputError, match="at least 8, got 4"):
        support(TinyNet(), SIZE, draws=4)
