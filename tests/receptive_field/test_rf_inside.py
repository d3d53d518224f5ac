"""Receptive fields of clips that begin inside of a network: support and theory against perturbed pixels."""

import pytest
import torch
from rf_cases import TinyNet, facts, noise, same_facts
from torch import Tensor, nn

from image2video import VideoWrap
from image2video.errors import InputError, InputTypeError
from image2video.integrations.timm_backbones import build
from image2video.receptive_field import Unit, clip_field, compare, effective, support, theoretical
from image2video.receptive_field.survey import default_layer

SIZE = (24, 32)
UNIT = (3, 4)
CASES = [
    *(("2", text) for text in ("translate_x(0.2) > translate_y(-0.1)", "translate_x(1 cell)", "scale(0.6)")),
    *(("4", text) for text in ("rotate(25)", "identity | flip_x")),
    (None, "rotate(25)"),
]
pytestmark = pytest.mark.filterwarnings("ignore:the map at")


def chain(seed: int = 0) -> nn.Sequential:
    """Strides of 2 and of 4, with derivatives that are nowhere zero."""
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1),
        nn.Softplus(),
        nn.Conv2d(3, 3, 3, padding=1),
        nn.Softplus(),
        nn.Conv2d(3, 3, 3, stride=2, padding=1),
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return net.double()


def video(net: nn.Module, place: str | None, genotype: str, channels: int = 2, **options: object) -> VideoWrap:
    how = {"T": 2, "schedule": None if "|" in genotype else "from_zero", "padding": "reflection", "aggregate": "none"}
    how |= {"input_size": (channels, *SIZE), "clip_at": place, "fusion": "none", "residual": False, **options}
    return VideoWrap(net, genotype=genotype, **how).eval()


def by_perturbing(model: VideoWrap, read: int | None, channels: int = 2) -> Tensor:
    """The pixels `(H, W)` whose change changes the unit at UNIT, of frame `read` or of the aggregate."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.zeros(SIZE, dtype=torch.bool)
    rows = torch.arange(SIZE[0] * SIZE[1])
    with torch.no_grad():
        for _ in range(2):
            image = torch.randn(1, channels, *SIZE, generator=generator, dtype=torch.float64)
            change = torch.randn(channels, generator=generator, dtype=torch.float64)
            changed = image.repeat(len(rows), 1, 1, 1)
            changed.flatten(2)[rows, :, rows] += change
            still, moved = (maps if read is None else maps[:, read] for maps in (model(image), model(changed)))
            different = (moved - still)[..., UNIT[0], UNIT[1]].abs().amax(1) > 1e-9
            mask |= different.view(SIZE)
    return mask


@pytest.mark.parametrize(("place", "genotype"), CASES)
def test_theory_and_support_are_what_perturbed_pixels_show(place: str | None, genotype: str) -> None:
    model = video(chain(), place, genotype)
    theory = clip_field(model, SIZE, Unit(position=UNIT))
    for frame in (0, 1):
        shown = by_perturbing(model, frame)
        found = support(model, SIZE, Unit(position=UNIT, frame=frame, channel="all"), tolerance=1e-9)
        assert torch.equal(found.mask, shown)
        assert torch.equal(theory.frames[frame], shown)
        assert [bool(one.any()) for one in found.frames] == [frame == 0, frame == 1]
        assert found.frames.shape == (2, *theory.map_size)
    assert theory.place == place
    assert theory.areas == tuple(theory.frames.sum((1, 2)).tolist())
    assert theory.area == int(theory.mask.sum())


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_what_stands_outside_of_the_map_is_read_as_the_sampler_reads_it(padding: str) -> None:
    model = video(chain(), "2", "translate_x(-0.6)", padding=padding)
    theory = clip_field(model, SIZE, Unit(position=UNIT))
    assert torch.equal(theory.frames[1], by_perturbing(model, 1))
    assert theory.areas[1] < theory.areas[0] if padding == "zeros" else theory.frames[1].any()


@pytest.mark.parametrize("genotype", ["translate_x(1 cell)", "rotate(25)"])
def test_the_support_of_averaged_maps_goes_back_by_the_way_of_the_map(genotype: str) -> None:
    model = video(chain(), "2", genotype, aggregate="auto")
    found = support(model, SIZE, Unit(position=UNIT, channel="all"), tolerance=1e-9)
    assert torch.equal(found.mask, by_perturbing(model, None))
    assert found.frames.flatten(1).any(1).all()


@pytest.mark.parametrize("fusion", ["tsm", "gsf"])
def test_a_fusion_sees_no_more_than_the_frames_together(fusion: str) -> None:
    torch.manual_seed(0)
    net = TinyNet("map").double()
    model = video(net, "layer2", "rotate(30) > translate_x(0.1)", channels=3, fusion=fusion, aggregate="auto")
    with torch.no_grad():
        for parameter in model.fusion.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    unit = Unit("layer2", position=UNIT, frame=1)
    found, theory = support(model, SIZE, unit), clip_field(model, SIZE, unit)
    alone = support(video(TinyNet("map").double(), "layer2", "rotate(30) > translate_x(0.1)", 3), SIZE, unit)
    assert not (alone.mask & ~theory.frames[1]).any()
    assert (found.mask & ~alone.mask).any()
    if fusion != "gsf":  # whose weights are means over the plane
        assert not (found.mask & ~theory.mask).any()
        assert found.frames.flatten(1).any(1).all()


def test_shifts_move_the_whole_field_and_zooms_what_is_behind_the_place() -> None:
    unit = Unit(position=UNIT)
    for place, stride in (("2", 2), ("4", 2)):
        shifted = clip_field(video(chain(), place, "translate_x(1 cell)"), SIZE, unit)
        assert torch.equal(shifted.frames[1][:, :-stride], shifted.frames[0][:, stride:])
    still = theoretical(chain(), input_size=(2, *SIZE)).size
    heights = []
    for place in (None, "2", "4"):
        zoomed = clip_field(video(chain(), place, "scale(0.5)", padding="zeros"), SIZE, unit)
        before, behind = ((1, 1), still) if place is None else (zoomed.before.size, zoomed.behind.size)
        # Half the size twice as far apart, and the cells between which the sampler reads.
        stride = 1 if place is None else 2
        heights.append(before[0] + stride * (2 * (behind[0] - 1) + 1))
        rows = zoomed.frames[1].any(1).nonzero()
        assert int(rows[-1] - rows[0]) + 1 <= heights[-1]
    assert heights[0] > heights[1] > heights[2] > still[0]


def test_units_before_the_place_see_the_image() -> None:
    net = TinyNet("map")
    model = video(net, "layer2", "rotate(30)", channels=3, aggregate="auto")
    images = noise(2, SIZE)
    before = facts(model)
    early = Unit("layer1", position=UNIT)
    assert "aggregated" not in effective(model, images, early).described
    bare = effective(TinyNet("map"), images, early)
    assert torch.equal(effective(model, images, early).map, bare.map)
    assert effective(model, images, early).frame_shares is None
    with pytest.raises(InputError, match=r"layer 'layer1' lies before the place where the clip begins, 'layer2'"):
        effective(model, images, Unit("layer1", frame=1))
    with pytest.raises(InputError, match="lies before the place where the clip begins, 'layer2'"):
        clip_field(model, SIZE, early)
    with pytest.raises(InputTypeError, match="a clip's field needs a VideoWrap"):
        clip_field(net, SIZE)
    assert same_facts(facts(model), before)


def test_frames_of_maps_have_their_shares_of_the_gradient() -> None:
    models = {"bare": TinyNet("map"), "inside": video(TinyNet("map"), "layer2", "rotate(30)", 3, aggregate="auto")}
    images = noise(2, SIZE)
    still = compare(models, images, Unit("layer2", frame=0))
    assert torch.equal(still.fields["inside"].map, still.fields["bare"].map)
    assert still.fields["inside"].frame_shares == (1, 0)
    shares = compare(models, images, Unit("layer2")).fields["inside"].frame_shares
    assert sum(shares) == pytest.approx(1)
    assert min(shares) > 0.3


def test_the_layer_that_is_shown_lies_behind_the_place() -> None:
    net, size = build("cifar_resnet8", num_classes=4), (3, 16, 16)
    assert default_layer(net, size) == "layer2"
    model = VideoWrap(net, "none", genotype="flip_x", T=2, clip_at="layer3", input_size=size)
    assert default_layer(model, size) == "layer3"


def test_tokens_are_frames_too() -> None:
    timm = pytest.importorskip("timm")
    net = timm.create_model("test_vit", num_classes=4).eval()
    model = VideoWrap(net, "none", genotype="flip_x", T=2, schedule="from_zero", clip_at="blocks.3").eval()
    size = tuple(model.plan.input_size[1:])
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    field = effective(model, images, Unit("blocks.4", frame=1))
    assert field.frame_shares == (0, 1)
    assert clip_field(model, size, Unit("blocks.4")).behind.whole
