"""Test-time augmentation: ttach's transforms as frame sets, and the signs of torchvision's and kornia's warps."""

import copy
import math

import pytest
import torch
from imagenet_sample import logits_of, needs_sample, network_and_images
from torch import nn
from torchvision.transforms.v2 import functional as tv
from wrap_helpers import images

from image2video import Genotype, Image2Video, VideoWrap
from image2video.errors import InputError, InputTypeError, UnsupportedError
from image2video.integrations.tta_transforms import frame_set_of

HEIGHT, WIDTH = 40, 64
INNER = (..., slice(12, -12), slice(20, -20))
"""Where no warp shows what is outside of the image."""


class Net(nn.Module):
    """Scores by convolution: of each pixel, or of the whole image; not symmetric in any direction."""

    def __init__(self, whole):
        super().__init__()
        torch.manual_seed(0)
        self.convs = nn.Sequential(nn.Conv2d(3, 6, (3, 5), padding=(1, 2)), nn.Tanh(), nn.Conv2d(6, 4, 3, padding=1))
        self.whole = whole

    def forward(self, x):
        maps = self.convs(x)
        return maps.square().mean((2, 3)) if self.whole else maps


def composes():
    ttach = pytest.importorskip("ttach")
    return {
        "hflip": (ttach.aliases.hflip_transform(), "identity | flip_x", {}),
        "flips": (ttach.aliases.flip_transform(), "identity | flip_y | flip_x | flip_x > flip_y", {}),
        "turns": (ttach.Compose([ttach.Rotate90([0, 180])]), "identity | flip_x > flip_y", {}),
        "d4": (
            ttach.aliases.d4_transform(),
            "identity | rotate(90) | flip_x > flip_y | rotate(-90) | flip_x | flip_x > rotate(90) | "
            "flip_x > flip_x > flip_y | flip_x > rotate(-90)",
            {"square": True},
        ),
    }


@pytest.mark.parametrize("name", ["hflip", "flips", "turns", "d4"])
def test_a_frame_set_gives_what_ttach_gives(name):
    ttach = pytest.importorskip("ttach")
    transforms, text, options = composes()[name]
    frames = frame_set_of(transforms, **options)
    assert str(frames) == text
    batch = images(size=(3, 48, 48) if options else (3, HEIGHT, WIDTH))
    for whole, tta in ((True, ttach.ClassificationTTAWrapper), (False, ttach.SegmentationTTAWrapper)):
        net = Net(whole).eval()
        model = VideoWrap(copy.deepcopy(net), fusion="none", genotype=frames).eval()
        with torch.no_grad():
            torch.testing.assert_close(model(batch), tta(net, transforms)(batch), atol=1e-6, rtol=1e-5)


def test_the_nearest_ops_are_taken_when_asked_for():
    ttach = pytest.importorskip("ttach")
    transforms = ttach.Compose([ttach.HorizontalFlip(), ttach.Multiply([0.8])])
    frames = frame_set_of(transforms, nearest=True)
    assert str(frames) == "identity | brightness(0.8) | flip_x | flip_x > brightness(0.8)"
    batch = torch.rand(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    net = Net(False).eval()
    model = VideoWrap(copy.deepcopy(net), fusion="none", genotype=frames, mean=0, std=1).eval()
    with torch.no_grad():
        torch.testing.assert_close(
            model(batch), ttach.SegmentationTTAWrapper(net, transforms)(batch), atol=1e-6, rtol=1e-5
        )
    zoom = frame_set_of(ttach.aliases.multiscale_transform([0.5, 2]), nearest=True)
    assert str(zoom) == "identity | scale(0.5) | scale(2)"


def test_what_has_no_counterpart_is_refused_by_name():
    ttach = pytest.importorskip("ttach")
    for transforms, message in (
        ([ttach.FiveCrops(16, 16)], r"FiveCrops has no counterpart: .* scale\(s\) > translate_x"),
        ([ttach.Add([0.1])], r"Add has no counterpart: no op adds"),
        ([ttach.Resize([(16, 16)])], r"Resize has no counterpart"),
        ([ttach.Scale([2])], r"Scale has no equal: it shows the network the whole image at another size.*nearest=True"),
        ([ttach.Multiply([0.9])], r"Multiply has no equal: it multiplies normalised images"),
        ([ttach.Rotate90([90])], r"Rotate90 by 90 changes the shape .* pass square=True"),
    ):
        with pytest.raises(UnsupportedError, match=message):
            frame_set_of(ttach.Compose(transforms))
    with pytest.raises(InputError, match=r"turns by multiples of 90 degrees, got 45"):
        frame_set_of([ttach.Rotate90([45])])
    with pytest.raises(InputTypeError, match=r"expected transforms of ttach .* got a Conv2d; write the frames as text"):
        frame_set_of([nn.Conv2d(1, 1, 1)])
    with pytest.raises(InputTypeError, match=r"must be a ttach\.Compose or a list, got a int"):
        frame_set_of(3)
    with pytest.raises(InputTypeError, match=r"got a HorizontalFlip; pass a list of it: \[transform\]$"):
        frame_set_of(ttach.HorizontalFlip())
    wrapper = ttach.ClassificationTTAWrapper(nn.Identity(), ttach.aliases.hflip_transform())
    with pytest.raises(InputTypeError, match=r"got a Clas.*Wrapper; pass its transforms: wrapper\.transforms$"):
        frame_set_of(wrapper)
    for empty in ([], ttach.Compose([])):  # it gave a frame set of the image alone
        with pytest.raises(InputError, match=r"expected one transform or more, got none"):
            frame_set_of(empty)


def picture():
    """A smooth image without any symmetry, in float64."""
    noise = torch.rand(1, 3, HEIGHT, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return nn.functional.avg_pool2d(noise, 9, 1, 4)


def ours(genotype):
    return Image2Video(Genotype.parse(genotype), T=1, schedule="ramp", padding="zeros")(picture())[:, 0]


def same(genotype, warped):
    return (ours(genotype) - warped).abs()[INNER].max() < 1e-7


@pytest.mark.parametrize(
    ("genotype", "arguments", "sign"),
    [
        ("rotate(10)", {"angle": 10.0}, -1),
        ("shear_x(10)", {"shear": [10.0, 0.0]}, -1),
        ("shear_y(10)", {"shear": [0.0, 10.0]}, -1),
        ("translate_x(0.125)", {"translate": [0.125 * WIDTH, 0.0]}, 1),
        ("translate_y(-0.1)", {"translate": [0.0, -0.1 * HEIGHT]}, 1),
    ],
)
def test_signs_against_torchvisions_affine(genotype, arguments, sign):
    def warped(sign):
        given = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
        for key, value in arguments.items():
            given[key] = [sign * number for number in value] if isinstance(value, list) else sign * value
        given["translate"] = [round(shift) for shift in given["translate"]]
        return tv.affine(picture(), interpolation=tv.InterpolationMode.BILINEAR, **given)

    assert same(genotype, warped(sign))
    assert not same(genotype, warped(-sign))


def test_torchvisions_rotate_and_scale_have_our_signs():
    bilinear = tv.InterpolationMode.BILINEAR
    assert same("rotate(10)", tv.rotate(picture(), 10.0, interpolation=bilinear))
    zoomed = tv.affine(picture(), angle=0.0, translate=[0, 0], scale=1.2, shear=[0.0, 0.0], interpolation=bilinear)
    assert same("scale(1.2)", zoomed)


def test_signs_against_kornia():
    kornia = pytest.importorskip("kornia")
    warp, image = kornia.geometry.transform, picture()

    def number(*values):
        return torch.tensor([values[0]] if len(values) == 1 else [values], dtype=torch.float64)

    assert same("rotate(10)", warp.rotate(image, number(10.0)))
    assert same("translate_x(0.125)", warp.translate(image, number(8.0, 0.0)))
    assert same("scale(1.2)", warp.scale(image, number(1.2, 1.2)))
    # By the tangent, and about the corner of the image: the middle moves by half of the height.
    tangent = math.tan(math.radians(10))
    moved = tangent * (HEIGHT - 1) / 2 / WIDTH
    assert same(f"shear_x(10) > translate_x({moved:.12f})", warp.shear(image, number(tangent, 0.0)))
    # The augmentations turn and shear the other way.
    fixed = {"p": 1.0, "same_on_batch": True}
    assert same("rotate(-10)", kornia.augmentation.RandomAffine(degrees=(10.0, 10.0), **fixed)(image))
    sheared = kornia.augmentation.RandomAffine(degrees=(0.0, 0.0), shear=(10.0, 10.0), **fixed)(image)
    assert same("shear_x(-10)", sheared)


def test_torchvisions_affine_is_one_chain():
    given = {"angle": -20.0, "translate": [5, -3], "scale": 1.1, "shear": [-8.0, 0.0]}
    warped = tv.affine(picture(), interpolation=tv.InterpolationMode.BILINEAR, **given)
    chain = f"scale(1.1) > shear_x(8) > rotate(20) > translate_x({5 / WIDTH}) > translate_y({-3 / HEIGHT})"
    assert same(chain, warped)


def test_kornias_augmentations_stand_in_front_of_a_wrapped_network():
    kornia = pytest.importorskip("kornia")
    net = Net(True)
    model = nn.Sequential(
        kornia.augmentation.RandomHorizontalFlip(p=1.0), VideoWrap(net, fusion="none", genotype="rotate(5)")
    )
    batch = images(size=(3, HEIGHT, WIDTH))
    torch.testing.assert_close(model(batch), model[1](batch.flip(-1)))
    model(batch).sum().backward()
    assert net.convs[0].weight.grad.abs().sum() > 0


def test_the_other_merges_are_callables_and_probabilities():
    ttach = pytest.importorskip("ttach")
    transforms, net, batch = ttach.aliases.hflip_transform(), Net(True).eval(), images(size=(3, HEIGHT, WIDTH))
    wrap = {"fusion": "none", "genotype": frame_set_of(transforms)}
    with torch.no_grad():
        most = ttach.ClassificationTTAWrapper(net, transforms, merge_mode="max")(batch)
        sure = ttach.ClassificationTTAWrapper(nn.Sequential(net, nn.Softmax(-1)), transforms)(batch)
        model = VideoWrap(net, aggregate=lambda out, T: out.unflatten(0, (-1, T)).amax(1), **wrap)
        torch.testing.assert_close(model(batch), most, atol=1e-6, rtol=0)
        model = VideoWrap(model.unwrap(), aggregate="mean_prob", **wrap)
        torch.testing.assert_close(model(batch), sure.log(), atol=1e-6, rtol=0)


@pytest.mark.data
@needs_sample
def test_a_trained_network_says_the_same_of_real_images_as_with_ttach():
    ttach = pytest.importorskip("ttach")
    network, batch, labels = network_and_images(slice(0, 64))
    transforms = ttach.aliases.hflip_transform()
    model = VideoWrap(copy.deepcopy(network), fusion="none", genotype=frame_set_of(transforms)).eval()
    with torch.no_grad():
        theirs, ours, bare = (
            logits_of(net, batch) for net in (ttach.ClassificationTTAWrapper(network, transforms), model, network)
        )
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)
    right = [(logits.argmax(1) == labels).float().mean().item() for logits in (bare, theirs, ours)]
    print("right, bare, ttach, ours:", right)
    assert right[1] == right[2] > 0.5
