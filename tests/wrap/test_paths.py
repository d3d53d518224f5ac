"""What leads past a place of a clip in a way to run that was not planned: refused by name, before anything is added."""

import copy
import pickle
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from image2video import VideoWrap, phases
from image2video.errors import InputError

SIZE = (3, 24, 32)
SITES = {"second": "rotate(9)", "third": "translate_x(0.2)"}
AT_IMAGE = {"image": "translate_x(0.1)", "third": "rotate(9)"}


class Net(nn.Module):
    """Three convolutions; where `leaks` says so, what the first one made is added behind the third."""

    def __init__(self, leaks: Callable[["Net", Tensor], bool] = lambda net, x: net.training) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.third = nn.Conv2d(4, 4, 3, padding=1)
        self.leaks = leaks

    def forward_features(self, images: Tensor) -> Tensor:
        first = self.first(images)
        second = self.second(first)
        third = self.third(second)
        # What the second has made is of the second's frames: only the third place is passed by.
        return third + second if self.leaks(self, images) else third

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        return features.mean((2, 3))

    def forward(self, images: Tensor, further: bool = False) -> Tensor:
        found = self.forward_head(self.forward_features(images))
        return found + self.first(images).mean((2, 3)) if further else found


def wrapped(leaks=lambda net, x: net.training, sites=SITES, **options):
    torch.manual_seed(0)
    options = {"input_size": SIZE} | options
    return VideoWrap(Net(leaks).eval(), "none", genotype=sites, T=3, **options)


def images(count=2, size=SIZE, dtype=torch.float32):
    return torch.randn(count, *size, dtype=dtype, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("sites", [SITES, AT_IMAGE])
@pytest.mark.parametrize("count", [1, 2])
def test_past_a_later_place_in_training_alone(sites, count):
    model = wrapped(sites=sites)
    expected = model(images(count))
    with pytest.raises(InputError, match=r"place 'third' .* in training mode what 'second' makes leads past it to"):
        model.train()(images(count))
    with pytest.raises(InputError, match="leads past it"):  # as often as it is asked
        model(images(count))
    assert torch.equal(model.eval()(images(count)), expected)


def test_past_a_later_place_in_eval_mode_alone():
    net = Net(lambda net, x: not net.training)
    with pytest.raises(InputError, match="clip_at='third' must be on every path"):
        VideoWrap(net, "none", genotype=SITES, T=3, input_size=SIZE)


@pytest.mark.parametrize("sites", ["rotate(9)", "identity | flip_x"])
@pytest.mark.parametrize("count", [1, 2])
def test_past_the_only_place_a_single_image_would_be_added_to_its_frames(sites, count):
    torch.manual_seed(0)
    options = {"T": 3} if "|" not in sites else {}
    model = VideoWrap(Net().eval(), "none", genotype=sites, clip_at="third", input_size=SIZE, **options)
    with pytest.raises(InputError, match=r"clip_at='third' must be .* in training mode what 'second' makes leads past"):
        model.train()(images(count))


def test_a_part_of_the_network_in_training():
    model = wrapped(lambda net, x: net.second.training)
    model(images())
    model.backbone.second.train()
    with pytest.raises(InputError, match="leads past it"):
        model(images())


def test_images_of_another_size():
    model = wrapped(lambda net, x: x.shape[-1] > 40)
    model(images())
    model(images(size=(3, 16, 40)))
    with pytest.raises(InputError, match=r"in eval mode for images of 24×48 what 'second' makes leads past"):
        model(images(size=(3, 24, 48)))


def test_another_precision():
    model = wrapped(lambda net, x: x.dtype == torch.float64 or torch.is_autocast_enabled("cpu"))
    model(images())
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(InputError, match=r"autocast to torch\.bfloat16"):
        model(images())
    with pytest.raises(InputError, match=r"for torch\.float64"):
        model.double()(images(dtype=torch.float64))


def test_a_keyword_of_the_call():
    model = wrapped(lambda net, x: False)
    model(images())
    with pytest.raises(InputError, match=r"clip_at='second' .* with further=True what '\(images\)' makes leads"):
        model(images(), further=True)


def test_other_doors():
    model = wrapped()
    features = model.forward_features(images())
    assert torch.equal(model.forward_head(features), model(images()))
    model.train()
    with pytest.raises(InputError, match="in training mode by forward_features what 'second' makes"):
        model.forward_features(images())
    with pytest.raises(InputError, match="in training mode what 'second' makes"):
        model.forward_head(features)


def test_another_number_of_frames():
    model = wrapped().train()
    for T in (2, 5):
        with pytest.raises(InputError, match="leads past it"):
            model(images(), T=T)
    model.set_frames(2)
    with pytest.raises(InputError, match="leads past it"):
        model(images())


def test_frames_at_the_image_alone_may_go_any_way():
    model = VideoWrap(Net(), "none", genotype="rotate(9)", T=3, input_size=SIZE).train()
    assert model(images()).shape == (2, 4)


class Again(Net):
    """In training the second convolution comes behind the third, or runs twice, or sees no images."""

    how = "order"

    def forward_features(self, images: Tensor) -> Tensor:
        first = self.first(images)
        if not self.training:
            return self.third(self.second(first))
        if self.how == "order":
            return self.second(self.third(first))
        if self.how == "twice":
            return self.third(self.second(self.second(first)))
        return self.third(self.second(torch.zeros(first.shape))) if self.how == "alone" else first


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("order", "what comes in at 'third' has not passed the place before it"),
        ("twice", "'second' runs 2 times"),
        ("alone", "what comes in at 'second' is not made from the images"),
    ],
)
def test_places_that_are_passed_otherwise(how, words):
    net = Again().eval()
    net.how = how
    model = VideoWrap(net, "none", genotype=SITES, T=3, input_size=SIZE)
    with pytest.raises(InputError, match=words):
        model.train()(images())


def test_each_way_is_traced_once(monkeypatch):
    from image2video.inject import paths

    traced = []
    trace = paths.trace_forward
    monkeypatch.setattr(paths, "trace_forward", lambda *args, **how: traced.append(1) or trace(*args, **how))
    model = wrapped(lambda net, x: False)
    for _ in range(2):
        model(images())  # as planned
    assert not traced
    for _ in range(2):
        model.train()(images())
        model(images(3), T=2)
        model.eval()(images(size=(3, 16, 24)))
    assert len(traced) == 2
    again = pickle.loads(pickle.dumps(copy.deepcopy(model.fusion.paths)))
    assert again.found == model.fusion.paths.found
    for width in range(16, 16 + paths.MAX_SIZES):
        model(images(1, (3, 16, width)))
    with pytest.warns(UserWarning, match="images of 16 sizes have come so far; .* not looked at any more"):
        model(images(1, (3, 16, 80)))
    model(images(1, (3, 16, 81)))  # it is said once
    assert len(traced) == 1 + paths.MAX_SIZES


def test_looking_counts_for_nothing():
    model = wrapped(lambda net, x: False).train()
    state = torch.get_rng_state()
    with FlopCounterMode(display=False) as first:
        model(images())
    with FlopCounterMode(display=False) as second:
        model(images())
    assert first.get_total_flops() == second.get_total_flops()
    assert torch.equal(state, torch.get_rng_state())


def test_what_cannot_be_traced_is_said_once():
    class Blind(Net):
        def forward(self, images):
            assert not self.training or images.shape[0] == 6, "this model cannot be traced"
            return super().forward(images)

    torch.manual_seed(0)
    model = VideoWrap(Blind(lambda net, x: False).eval(), "none", genotype=AT_IMAGE, T=3, input_size=SIZE).train()
    with pytest.warns(UserWarning, match=r"whether something leads past the places image, third in training mode is"):
        model(images())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(images())


def test_preset_phases_in_training():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, 2, 1), nn.AdaptiveAvgPool2d(1))
    model = VideoWrap(net, "none", genotype=phases(net, input_size=SIZE), input_size=SIZE).train()
    model(images()).sum().backward()
    assert len(model.plan.clip_sites) == 1


def test_compiled_before_it_has_run():
    torch._dynamo.reset()
    model = wrapped()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(images()), model(images()))
    model.train()
    with pytest.raises(Exception, match="in training mode what 'second' makes leads past"):
        compiled(images())


def test_what_was_refused_is_looked_at_again():
    model = wrapped(lambda net, x: getattr(net, "passes_by", False)).train()
    model.backbone.passes_by = True
    with pytest.raises(InputError, match="leads past it"):
        model(images())
    model.backbone.passes_by = False
    assert model(images()).shape == (2, 4)


def test_what_is_remembered_of_calls_is_bounded(monkeypatch):
    from image2video.inject import recent

    class Word:
        """Something that is printed with its address."""

    class Scaled(Net):
        def forward(self, images, scale=1.0, word=None):
            return super().forward(images) * scale

        def encode(self, images, scale=1.0, word=None):
            return self.forward_features(images) * scale

    monkeypatch.setattr(recent, "MAX_CALLS", 3)
    model = VideoWrap(Scaled(lambda net, x: False).eval(), "none", genotype=SITES, T=3, input_size=SIZE)
    for number in range(5):
        model(images(), scale=float(number))
        model.encode(images(), scale=float(number))
    assert [len(known) for known in (model.fusion.paths.found, model._late)] == [3, 3]
    words = [Word(), Word()]
    assert repr(words[0]) != repr(words[1])
    for word in words:
        model.encode(images(), word=word)
    assert sum("Word object" in way.arguments for way in model.fusion.paths.found) == 1


class Methods(Net):
    """Methods that never call the network itself."""

    def encode(self, images: Tensor) -> Tensor:
        first = self.first(images)
        return (self.third(self.second(first)) + first).mean((2, 3))

    def encode_at(self, scale: float, images: Tensor) -> Tensor:
        return self.encode(images) * scale

    def good(self, images: Tensor) -> Tensor:
        return self.forward_features(images).mean((2, 3))

    def low(self, images: Tensor) -> Tensor:
        return self.first(images).mean((2, 3))


@pytest.mark.parametrize("sites", [SITES, AT_IMAGE, "third"])
@pytest.mark.parametrize("count", [1, 2])
def test_methods_of_the_backbone(sites, count):
    torch.manual_seed(0)
    place = {"clip_at": sites, "genotype": "rotate(9)"} if isinstance(sites, str) else {"genotype": sites}
    model = VideoWrap(Methods(lambda net, x: False).eval(), "none", **place, T=3, input_size=SIZE)
    with pytest.raises(InputError, match=r"in eval mode by encode what 'first' makes leads past it to"):
        model.encode(images(count))
    with pytest.raises(InputError, match=r"by encode_at with images=1, 0=2\.0 what 'first' makes leads past it to"):
        model.encode_at(2.0, images(count))
    torch.testing.assert_close(model.good(images(count)), model(images(count)))


@pytest.mark.parametrize("count", [1, 2])
def test_methods_that_end_before_the_place(count):
    torch.manual_seed(0)
    net = Methods(lambda net, x: False).eval()
    expected = net.low(images(count))
    model = VideoWrap(net, "none", genotype="rotate(9)", clip_at="third", T=3, input_size=SIZE)
    found = list(map(model.low, [images(count), images(count)]))
    assert len(found) == 2
    for one in found:
        torch.testing.assert_close(one, expected)
