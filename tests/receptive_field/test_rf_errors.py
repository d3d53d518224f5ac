"""Bad input to supports and effective fields: every refusal says what came and what is needed."""

import pytest
import torch
from rf_cases import TinyNet, facts, noise, same_facts, wrapped
from torch import nn

from image2video import RandomClips, VideoWrap
from image2video.errors import InputError, InputTypeError, StateError, UnsupportedError
from image2video.receptive_field import Unit, compare, effective, measures, prepare_random, support


class Apply(nn.Module):
    """A function as a layer."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def net(*functions) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), *(Apply(f) for f in functions))


@pytest.mark.parametrize(
    ("unit", "error", "message"),
    [
        (Unit("layer2", position=(10, 3)), InputError, r"unit \(10, 3\) is outside the map of layer 'layer2'.*10×14"),
        (Unit("layer2", channel=8), InputError, r"channel 8 is outside layer 'layer2', which has 8 channels"),
        (Unit("layer7"), InputError, r"no module 'layer7' runs.*near: layer"),
        (Unit("layer1", frame=0), InputError, r"of frame 0, and TinyNet has no frames"),
        (Unit(position=(0, 0)), InputError, "is a vector and has no position"),
        (Unit(output=2), InputError, r"output=2 is none of what TinyNet returns: the tensor itself \(1, 3\)"),
    ],
)
def test_units_that_a_model_does_not_have(unit: Unit, error: type[Exception], message: str) -> None:
    model = TinyNet()
    before = facts(model)
    with pytest.raises(error, match=message):
        effective(model, noise(), unit)
    with pytest.raises(error, match=message):
        support(model, (20, 28), unit)
    assert same_facts(before, facts(model))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"frame": -1}, InputError, "frame must be 0 … T − 1"),
        ({"channel": "best"}, InputError, "'all' or 'largest'"),
        ({"position": (1,)}, InputError, r"position must be \(row, column\)"),
        ({"position": (-1, 2)}, InputError, r"position must be \(row, column\)"),
        ({"layer": 3}, InputTypeError, "layer must be the name of a module"),
        ({"output": 1.5}, InputTypeError, "output must be a key"),
    ],
)
def test_units_that_no_model_has(options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Unit(**options)


def test_wrapped_models_name_their_frames() -> None:
    with pytest.raises(InputError, match=r"frame 3 is outside the clip of T = 3 frames; give 0 … 2"):
        effective(wrapped(), noise(), Unit("layer1", frame=3))
    with pytest.raises(InputError, match=r"Unit\(frame=0\)"):
        effective(wrapped(aggregate="none"), noise())
    model = wrapped()
    model.unwrap()
    with pytest.raises(StateError, match="was unwrapped"):
        effective(model, noise())


class _Around(nn.Module):
    """A network that calls a part of its own `backbone`."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = TinyNet("map")
        self.layer1 = nn.Conv2d(3, 4, 1)

    def forward(self, images):
        return self.layer1(self.backbone(images))


def test_a_network_may_have_a_backbone_of_its_own() -> None:
    model = VideoWrap(_Around(), "tsm", genotype="rotate(9)", T=2, residual=False, input_size=(3, 20, 28)).eval()
    inner, outer = Unit("backbone.layer1", frame=0), Unit("layer1", frame=0)
    fields = {unit.layer: effective(model, noise(), unit) for unit in (inner, outer)}
    assert (fields["backbone.layer1"].unit.position, fields["layer1"].unit.position) == ((10, 14), (5, 7))
    bare = effective(TinyNet("map"), noise(), Unit("layer1")).measures.area[0.5]
    assert fields["backbone.layer1"].measures.area[0.5] < 3 * bare
    whole = effective(model, noise(), Unit("backbone.backbone.layer1", frame=0))
    assert torch.equal(whole.map, fields["backbone.layer1"].map)
    with pytest.raises(InputError, match=r"no module 'backbone\.layer9' runs"):
        effective(model, noise(), Unit("backbone.layer9"))


def test_several_outputs_are_listed() -> None:
    message = r"returns 3 tensors; say which with output=….*\['out'\] \(1, 3, 10, 14\), \['more'\]\[0\] \(1, 3\)"
    with pytest.raises(InputError, match=message):
        effective(TinyNet("dict"), noise())
    with pytest.raises(InputError, match=r"output='aux' is none of what TinyNet returns: \['out'\]"):
        effective(TinyNet("dict"), noise(), Unit(output="aux"))


def test_outputs_that_do_not_depend_on_the_images() -> None:
    constant = net(lambda x: torch.ones(len(x), 2))
    for take in (lambda: effective(constant, noise()), lambda: support(constant, (20, 28))):
        with pytest.raises(InputError, match="does not depend on the images"):
            take()


@pytest.mark.parametrize(
    "function", [lambda x: x.detach(), lambda x: x.argmax(1, keepdim=True).float(), lambda x: (x > 0).float()]
)
def test_layers_without_gradient(function) -> None:
    model = net(function)
    with pytest.raises(UnsupportedError, match=r"no gradient reaches the images from the largest channel"):
        effective(model, noise())
    with pytest.raises(UnsupportedError, match=r"no gradient reaches the images"):
        support(model, (20, 28))


class _NoDerivative(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        raise NotImplementedError("this op has no derivative")


def test_layers_that_cannot_be_differentiated() -> None:
    with pytest.raises(UnsupportedError, match="cannot be computed: NotImplementedError: this op has no derivative"):
        effective(net(_NoDerivative.apply), noise())


@pytest.mark.parametrize("function", [torch.round, lambda x: x.clamp(max=-1e9), lambda x: (x - 1e9).relu()])
def test_zero_gradients_everywhere_are_an_error(function) -> None:
    with pytest.raises(InputError, match="zero everywhere for all 4 images"):
        effective(net(function), noise())
    with pytest.raises(InputError, match="zero everywhere in 8 draws"):
        support(net(function), (20, 28))


def test_gradients_that_are_nan() -> None:
    images = noise(6)
    images[4, 0, 9, 13] = float("nan")
    with pytest.raises(InputError, match=r"NaN or infinite for 1 of 4 images of this batch \(rows 0\)"):
        effective(net(lambda x: x.square()), images[[4, 0, 1, 2]], Unit(channel=0))
    with pytest.raises(InputError, match="√x"):
        effective(net(lambda x: (x - x.detach()).sqrt()), noise())
    with pytest.raises(InputError, match="NaN"):
        support(net(lambda x: (x - x.detach()).sqrt()), (20, 28))


def test_images_of_another_size_or_kind() -> None:
    model = TinyNet()
    with pytest.raises(InputError, match=r"the images have 20×28 pixels, size says 28×20"):
        effective(model, noise(), size=(28, 20))
    with pytest.raises(InputTypeError, match=r"one tensor \(N, C, H, W\).*resize them"):
        effective(model, [noise(1)[0], noise(1, (8, 8))[0]])  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="uint8"):
        effective(model, noise().byte())
    with pytest.raises(InputError, match="at least one"):
        effective(model, noise(0))
    with pytest.raises(InputError, match=r"failed on images of size \(4, 20, 28\)"):
        effective(model, noise(channels=4))
    with pytest.raises(InputError, match="batch_size"):
        effective(model, noise(), batch_size=0)
    with pytest.raises(InputError, match="in words"):
        effective(model, noise(), weights="")
    with pytest.raises(InputError, match="size"):
        support(model, (20,))
    with pytest.raises(InputError, match=r"size=\(C, H, W\)"):
        support(nn.Sequential(nn.ReLU()), (20, 28))
    with pytest.raises(InputTypeError, match=r"torch\.nn\.Module"):
        effective(torch.relu, noise())  # type: ignore[arg-type]


def test_layers_without_places() -> None:
    flat = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Unflatten(1, (2, 2)), nn.Flatten(1, 2))
    with pytest.raises((InputError, UnsupportedError), match=r"name another layer|name the layer around"):
        effective(flat, noise(), Unit("1"))


def test_measures_refuse_maps_without_mass() -> None:
    with pytest.raises(InputError, match="zero everywhere"):
        measures(torch.zeros(4, 5))
    with pytest.raises(InputError, match="negative"):
        measures(-torch.ones(4, 5))
    with pytest.raises(InputError, match=r"\(H, W\)"):
        measures(torch.ones(1, 4, 5))
    with pytest.raises(InputError, match="shares"):
        measures(torch.ones(4, 5), (0.0,))


def test_comparisons_and_preparation() -> None:
    with pytest.raises(InputError, match="at least one"):
        compare({}, noise())
    with pytest.raises(InputError, match="weights has nothing for b; it has a"):
        compare({"a": TinyNet(), "b": TinyNet()}, noise(), weights={"a": "random"})
    with pytest.raises(InputError, match="no module") as caught:
        compare({"a": TinyNet()}, noise(), Unit("stage"))
    assert "model 'a'" in caught.value.__notes__[0]
    with pytest.raises(InputError, match="at least 2 images, got 1"):
        prepare_random(TinyNet(), noise(1))


def test_random_clips_and_half_precision_are_taken_as_they_are() -> None:
    clips = RandomClips(("rotate(9)", "scale(1.2)"), T=3)
    drawn = VideoWrap(TinyNet(), "tsm", frames=clips, residual=False, input_size=(3, 20, 28))
    shares = [effective(drawn, noise(2), Unit("layer1", frame=1)).frame_shares for _ in range(2)]
    assert shares[0] is not None
    assert min(shares[0]) > 0
    assert shares[0] == shares[1]
    model = VideoWrap(TinyNet(), "tsm", genotype="rotate(9)", T=2, residual=False, input_size=(3, 20, 28))
    half = effective(model.to(torch.bfloat16), noise(2), Unit("layer1", frame=0))
    assert half.map.dtype == torch.float64
