"""The effective field: gradients through the warps, against finite differences, and what is measured on them."""

import json
import math
from itertools import cycle

import pytest
import timm
import torch
from rf_cases import SIZE, TinyNet, facts, noise, same_facts, wrapped
from torch import nn

from image2video import VideoWrap
from image2video.receptive_field import Measures, Unit, compare, effective, measures, prepare_random, support
from image2video.receptive_field.measures import jackknife, long_axis
from image2video.receptive_field.probe import Probe, held_still
from image2video.receptive_field.target import locate

UNITS = [
    Unit("layer1", channel=2, frame=1),
    Unit("layer1", channel=5),
    Unit("layer2", channel="all", frame=0, position=(1, 3)),
    Unit(channel=1),
    Unit(),
    Unit(frame=2),
]


def value(model: nn.Module, images: torch.Tensor, unit: Unit) -> torch.Tensor:
    """The unit's value for every image, by the probe's own forward."""
    probe = Probe(model, [locate(model, 3, tuple(images.shape[-2:]), unit)], seed=0)
    with held_still(model), torch.no_grad():
        return probe.values(images)[0]


# How a unit is read has nothing to do with the fusion: every unit once, with the fusions in turn.
@pytest.mark.parametrize(("unit", "fusion"), [*zip(UNITS, cycle(["gsf", "tsm"]), strict=False)], ids=str)
def test_the_gradient_is_that_of_finite_differences(unit: Unit, fusion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    head = "map" if unit.channel == 1 else "vector"
    model = prepare_random(wrapped(fusion, head=head), noise(4, (7, 9))).double()
    image = noise(1, (7, 9), dtype=torch.float64)
    monkeypatch.setattr(torch, "randint", lambda high, size, generator: torch.ones(size, dtype=torch.long))
    field = effective(model, image, unit, weights="random")
    step = 1e-5
    moved = torch.eye(image.numel(), dtype=torch.float64).view(-1, *image.shape[1:]) * step
    slopes = (value(model, image + moved, unit) - value(model, image - moved, unit)) / (2 * step)
    expected = slopes.view(3, 7, 9).abs().mean(0)
    assert torch.allclose(field.map, expected, rtol=1e-5, atol=1e-8 * float(expected.max()))
    assert (field.size, field.images, field.weights, field.errors) == ((7, 9), 1, "random", None)


def test_the_value_is_read_at_the_unit() -> None:
    model, images = wrapped("gsf", head="map"), noise(3)
    seen = {}
    handle = model.backbone.layer1.register_forward_hook(lambda module, args, out: seen.update(x=out.detach()))
    with torch.no_grad():
        outputs = model(images)
    handle.remove()
    frames = seen["x"]
    mean = model.to_video.unwarped_mean(frames, (20, 28), 3)
    for unit, expected in [
        (Unit("layer1", channel=2, frame=1, position=(4, 9)), frames[1::3, 2, 4, 9]),
        (Unit("layer1", channel=5), mean[:, 5, 10, 14]),
        (Unit("layer1", channel="largest", position=(1, 2)), mean[:, :, 1, 2].amax(1)),
        (Unit(channel=1), outputs[:, 1, 5, 7]),
        (Unit(), outputs[:, :, 5, 7].amax(1)),
    ]:
        assert torch.allclose(value(model, images, unit), expected, atol=1e-6), str(unit)


@pytest.mark.parametrize("unit", [UNITS[0], UNITS[1], UNITS[2], UNITS[4]], ids=str)
def test_batches_do_not_matter(unit: Unit) -> None:
    model, images = wrapped("gsf").double(), noise(5, dtype=torch.float64)
    together, apart = (effective(model, images, unit, batch_size=n) for n in (5, 2))
    assert torch.allclose(together.map, apart.map, rtol=1e-9, atol=0)
    assert together.measures.spread == pytest.approx(apart.measures.spread)
    assert together.errors is not None
    one_by_one = torch.stack([effective(model, image[None], UNITS[0]).map for image in images])
    assert torch.allclose(one_by_one.mean(0), effective(model, images, UNITS[0]).map)


def test_without_fusion_only_averaging_reshapes_the_field() -> None:
    images = noise(3, SIZE)
    bare = effective(TinyNet(), images, Unit("layer2", channel=1))
    model = wrapped("none", "rotate(20)")
    frame = effective(model, images, Unit("layer2", channel=1, frame=0))
    assert torch.allclose(frame.map, bare.map, rtol=1e-4)
    assert frame.frame_shares == (1, 0, 0)
    mean = effective(model, images, Unit("layer2", channel=1))
    assert mean.frame_shares is not None
    assert sum(mean.frame_shares) == pytest.approx(1)
    assert min(mean.frame_shares) > 0.1
    assert mean.measures.area[0.99] > bare.measures.area[0.99]
    replica = effective(wrapped("none", "identity"), images, Unit("layer2", channel=1))
    assert torch.allclose(replica.map, bare.map, rtol=1e-4)
    assert bare.frame_shares is None
    assert "aggregated" in mean.described
    assert "frame 0" in frame.described


class _Line(nn.Module):
    """Every unit sees a horizontal line of 15 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, (1, 15), padding=(0, 7))
        nn.init.ones_(self.conv.weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(images)


@pytest.mark.parametrize("degrees", [20, -20, 35])
def test_the_field_turns_against_the_content(degrees: int) -> None:
    clip = {"genotype": f"rotate({degrees})", "T": 2, "schedule": "from_zero", "padding": "zeros"}
    model = VideoWrap(_Line(), "none", input_size=(3, 41, 51), **clip).eval()
    turned = effective(model, noise(1, (41, 51)), Unit(frame=1, channel=0)).measures
    flat = effective(model, noise(1, (41, 51)), Unit(frame=0, channel=0)).measures
    # Frame 1 shows the content turned by the angle: what a line in it covers is the line turned back.
    assert turned.angle == pytest.approx(-degrees, abs=1)
    assert flat.angle == pytest.approx(0, abs=1e-6)
    assert flat.area[0.99] == pytest.approx(0.99 * 15)
    assert turned.anisotropy > 5


def test_mass_lies_within_the_support() -> None:
    model, unit = wrapped("tsm", "rotate(30)"), Unit("layer1", frame=1)
    mass = effective(model, noise(4, SIZE), unit).map > 0
    assert not (mass & ~support(model, SIZE, unit).mask).any()


def test_measures_of_shapes_that_are_known() -> None:
    block = torch.zeros(40, 60)
    block[10:18, 20:44] = 2.0
    got = measures(block)
    assert got.area == pytest.approx({0.2: 0.2 * 192, 0.3: 0.3 * 192, 0.5: 96, 0.99: 0.99 * 192})
    assert got.centre == pytest.approx((14, 32))
    assert got.anisotropy == pytest.approx(3)
    assert got.spread == pytest.approx(math.sqrt((8**2 / 12 + 24**2 / 12) / 2))
    assert got.angle == pytest.approx(0)
    assert measures(block.T).angle == pytest.approx(90)
    single = measures(torch.eye(1))
    assert (single.anisotropy, single.area[0.5], *single.centre) == pytest.approx((1, 0.5, 0.5, 0.5))
    down_right = torch.eye(30)  # falls to the right: −45° counter-clockwise on the screen
    assert measures(down_right).angle == pytest.approx(-45)
    assert measures(down_right.flip(1) * 1e-30).angle == pytest.approx(45)


@pytest.mark.parametrize("rounding", [0.0, -0.0, 3e-15, -3e-15])
def test_the_last_bit_does_not_turn_an_axis(rounding: float) -> None:
    assert long_axis(9.0, 4.0, rounding) == 90
    assert long_axis(4.0, 9.0, rounding) == 0
    assert long_axis(4.0, 4.0 + abs(rounding), rounding) == 0
    assert long_axis(4.0 + abs(rounding), 4.0, rounding) == 0
    tall = torch.zeros(30, 20, dtype=torch.float64)
    tall[3:27, 8:11] = 1 / 3 * (1 + rounding)
    assert measures(tall).angle == measures(tall.flip(1)).angle == 90
    tall[3, 8] += 1e-6  # a lean that is no rounding keeps its side
    assert measures(tall).angle == pytest.approx(-measures(tall.flip(1)).angle)


def test_standard_errors_are_those_of_a_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    columns = torch.randint(5, 55, (20,), generator=generator)
    maps = torch.zeros(20, 10, 60, dtype=torch.float64)
    maps[torch.arange(20), 4, columns] = 1.0
    errors = jackknife(maps, torch.ones(20))
    assert errors is not None
    assert errors.centre[1] == pytest.approx(float(columns.double().std() / math.sqrt(20)))
    assert errors.centre[0] == pytest.approx(0, abs=1e-12)
    assert jackknife(maps[:1], torch.ones(1)) is None


def test_angles_near_the_vertical_have_small_errors() -> None:
    line = torch.zeros(12, 30, 30, dtype=torch.float64)
    for i in range(12):  # lines that lean a little to either side: angles near 90 and −90
        for row in range(30):
            line[i, row, 15 + round((row - 15) * (0.1 if i % 2 else -0.1))] = 1
    errors = jackknife(line, torch.ones(12))
    assert errors is not None
    assert errors.angle < 10


@pytest.mark.parametrize("failing", [False, True])
def test_the_model_is_afterwards_what_it_was(failing: bool) -> None:
    model = wrapped("gsf").train()
    model.backbone.norm.eval()
    model.backbone.stem.weight.requires_grad_(False)
    before, images = facts(model), noise(3)
    if failing:
        images[1, 0, 3, 3] = float("nan")
        with pytest.raises(ValueError, match="NaN"):
            effective(model, images, Unit("layer1", frame=0))
    else:
        effective(model, images, Unit("layer1", frame=0))
    assert same_facts(before, facts(model))


def test_a_value_is_read_before_it_is_changed_in_place() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, padding=1)
    nn.init.constant_(conv.bias, -100.0)  # the ReLU after it is dead everywhere
    model = nn.Sequential(conv, nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1))
    got = effective(model, noise(2, (11, 13)), Unit("0"))
    assert (got.map > 0).sum() == 9


def test_inference_mode_and_no_grad_around_it_do_not_matter() -> None:
    model, images = TinyNet(), noise(2)
    expected = effective(model, images, UNITS[4])
    with torch.inference_mode():
        assert torch.equal(effective(model, noise(2), UNITS[4]).map, expected.map)
    with torch.no_grad():
        assert torch.equal(effective(model, images, UNITS[4]).map, expected.map)


def test_transformers_and_channels_last_maps_have_units_too() -> None:
    torch.manual_seed(0)
    vit = timm.create_model("test_vit", img_size=(32, 48)).eval()
    tokens = effective(vit, noise(2, (32, 48)), Unit("blocks.0", position=(1, 2)))
    assert tokens.measures.area[0.99] > 500
    patch = effective(vit, noise(2, (32, 48)), Unit("patch_embed", position=(1, 2)))
    assert (patch.map > 0).nonzero().amin(0).tolist() == [16, 32]
    assert (patch.map > 0).sum() == 16 * 16
    clip = {"genotype": "translate_x(0.1)", "T": 3, "schedule": "from_zero", "padding": "zeros"}
    model = VideoWrap(vit, "tsm", residual=False, **clip).eval()
    frame = effective(model, noise(2, (32, 48)), Unit("blocks.0", position=(1, 2), frame=1))
    assert frame.frame_shares is not None
    assert min(frame.frame_shares) > 0


def test_outputs_are_chosen_by_key_index_and_path() -> None:
    model, images = TinyNet("dict"), noise(2)
    by_key = effective(model, images, Unit(output="out", channel=1))
    assert by_key.unit.position == (5, 7)
    path = effective(model, images, Unit(output="['more'][0]", channel=1))
    vector = effective(TinyNet("vector"), images, Unit(channel=1))
    assert torch.allclose(path.map, vector.map)
    inside = wrapped("none", head="dict")
    assert effective(inside, images, Unit(output="out", frame=1, channel=1)).frame_shares == (0, 1, 0)


def test_random_weights_are_prepared_on_a_copy() -> None:
    torch.manual_seed(0)
    model = VideoWrap(timm.create_model("test_resnet"), "gsm", genotype="rotate(10)", T=3, input_size=(3, 64, 64))
    gains = [m.bn2.weight for m in model.backbone.modules() if hasattr(m, "bn2")]
    for gain in gains:
        nn.init.zeros_(gain)
    before, images = facts(model), noise(8, (64, 64))
    twin = prepare_random(model, images, batch_size=8)
    assert same_facts(before, facts(model))
    assert len(gains) > 2
    assert all(p.abs().max() > 0 for n, p in twin.named_parameters() if not n.endswith("bias"))
    assert not twin.training
    seen = {}
    handle = twin.backbone.bn1.register_forward_hook(lambda m, args, out: seen.update(x=args[0]))
    with torch.no_grad():
        twin(images)
    handle.remove()
    norm = twin.backbone.bn1
    assert torch.allclose(norm.running_mean, seen["x"].mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(norm.running_var, seen["x"].var((0, 2, 3)), rtol=1e-3)
    assert norm.momentum == model.backbone.bn1.momentum
    still = effective(model, images[:2], Unit("layer2", frame=1))
    lively = effective(twin, images[:2], Unit("layer2", frame=1))
    assert still.frame_shares == (0, 1, 0)  # residual: fusion begins as nothing
    assert lively.frame_shares is not None
    assert min(lively.frame_shares) > 0.01


def test_a_comparison_is_a_table_and_json(tmp_path) -> None:
    models = {"bare": TinyNet(), "TSM": wrapped("tsm")}
    calls = []
    got = compare(
        models,
        noise(3),
        Unit("layer1", frame=1),
        weights={"bare": "random", "TSM": "trained on noise"},
        batch_size=2,
        progress=lambda stage, done, total, **_: calls.append((stage, done, total)),
    )
    assert calls == [(f"receptive field: {name}", done, 3) for name in models for done in (2, 3)]
    bare, tsm = got.records()
    assert (bare["name"], bare["weights"], bare["images"], bare["size"]) == ("bare", "random", 3, [20, 28])
    assert bare["unit"] == "all channels of the centre unit of layer1"
    assert tsm["unit"] == "all channels of the centre unit of layer1, frame 1"
    assert tsm["weights"] == "trained on noise"
    assert tsm["area_50"] > 0
    assert tsm["area_50_error"] > 0
    got.save(tmp_path / "rf.json")
    read = json.loads((tmp_path / "rf.json").read_text())
    assert read["records"] == json.loads(got.to_json())["records"]
    assert read["schema_version"] == 1
    assert isinstance(got.fields["bare"].measures, Measures)


def test_a_first_operation_in_place_changes_nothing() -> None:
    """A shift in place of the images, and the same out of place, have one field; bare and wrapped."""

    class Shifted(nn.Module):
        def __init__(self, inplace: bool) -> None:
            super().__init__()
            self.inplace = inplace
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x.mul_(2).add_(1) if self.inplace else x * 2 + 1)

    images = torch.randn(2, 3, 13, 17, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    for wrap in (False, True):
        fields = []
        for inplace in (False, True):
            model = Shifted(inplace).eval()
            if wrap:
                model = VideoWrap(model, "none", genotype="rotate(10)", T=2, input_size=(3, 13, 17)).eval()
            fields.append(effective(model, images).map)
        torch.testing.assert_close(fields[0], fields[1])
    assert torch.equal(images, before)
