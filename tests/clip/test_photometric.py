"""Photometric ops: torchvision's values at one step, what a power means, gradients, precision, and cutout's square."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms.v2 import functional as F  # noqa: N812 (torchvision's own name for it)

from image2video.clip.ops.photometric import cutout_box
from image2video.clip.ops.registry import get_op, op_names
from image2video.errors import InputError

H, W = 13, 18
NAMES = [name for name in op_names() if not get_op(name).geometric]
EXACT = [name for name in NAMES if get_op(name).gradient == "exact"]
STRAIGHT = [name for name in NAMES if get_op(name).gradient == "straight_through"]
# What torchvision gives for one step of magnitude m.
THEIRS = {
    "autocontrast": (1.0, lambda x, m: F.autocontrast(x)),
    "invert": (1.0, lambda x, m: F.invert(x)),
    "equalize": (1.0, lambda x, m: F.equalize(x)),
    "solarize": (0.3, lambda x, m: F.solarize(x, 1 - m)),
    "posterize": (3.0, lambda x, m: F.posterize(x, 8 - int(m))),
    "color": (1.7, F.adjust_saturation),
    "brightness": (0.6, F.adjust_brightness),
    "contrast": (1.9, F.adjust_contrast),
    "sharpness": (2.5, F.adjust_sharpness),
    "cutout": (0.5, lambda x, m: F.erase(x, *_place(m, x), v=torch.tensor(0.5))),
}
# Two steps of the default magnitude are one step of this; the others have full strength at once, and cutout moves.
TWICE = {"solarize": 0.2, "posterize": 2, "color": 1.44, "brightness": 1.21, "contrast": 1.21, "sharpness": 1.69}


def _place(magnitude: float, images: Tensor) -> tuple[int, int, int, int]:
    top, left, side = cutout_box(magnitude, 1.0, *images.shape[-2:])
    return top, left, side, side


def colours(N: int = 2, C: int = 3, seed: int = 0, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Images in low … high whose channels differ in range."""
    values = torch.rand(N, C, H, W, generator=torch.Generator().manual_seed(seed))
    spread = torch.linspace(0.5, 1, N * C).view(N, C, 1, 1)
    return low + (high - low) * values * spread


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_one_step_is_torchvisions_op(name: str, channels: int) -> None:
    images = colours(C=channels)
    magnitude, theirs = THEIRS[name]
    out = get_op(name).apply(images, magnitude, 1.0)
    assert torch.allclose(out, theirs(images, magnitude), atol=1e-6)
    assert torch.equal(out, images) == (name == "color" and channels == 1)  # grey has no colour


@pytest.mark.parametrize("name", [name for name in NAMES if name != "cutout"])
def test_a_power_is_what_the_page_says(name: str) -> None:
    images, op = colours(), get_op(name)
    theirs = THEIRS[name][1]
    assert torch.allclose(op.apply(images, op.default, 2.0), theirs(images, TWICE.get(name, 1.0)), atol=1e-6)
    back = op.apply(images, op.default, -2.0)
    if op.neutral == 1:  # factors: the power −2 is one over the power 2
        assert torch.allclose(back, op.apply(images, 1 / op.default, 2.0), atol=1e-6)
    else:  # a sign makes no sense
        assert torch.equal(back, op.apply(images, op.default, 2.0))


def test_strengths_blend_and_saturate() -> None:
    images = colours()
    for name, theirs in (("autocontrast", F.autocontrast), ("invert", F.invert), ("equalize", F.equalize)):
        op = get_op(name)
        third = op.apply(images, 0.15, -2.0)
        assert torch.allclose(third, images + 0.3 * (theirs(images) - images), atol=1e-6)
        assert torch.equal(op.apply(images, 0.15, 7.0), op.apply(images, 1.0, 1.0))
    assert torch.allclose(get_op("solarize").apply(images, 0.4, 5.0), 1 - images)
    assert torch.equal(get_op("posterize").apply(images, 3.0, 9.0), F.posterize(images, 1))
    assert torch.equal(get_op("posterize").apply(images, 0.5, 0.5), images)  # 7.75 bits are 8: the image itself
    bits = [len(get_op("posterize").apply(colours(8), 0.5, float(s)).unique()) for s in (2, 3, 4, 12, 14)]
    assert bits == [128, 128, 64, 4, 2]


@pytest.mark.parametrize("name", NAMES)
def test_identities(name: str) -> None:
    images, op = colours(), get_op(name)
    images[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    for magnitude, step in ((op.default, 0.0), (op.neutral, 1.0), (op.neutral, -3.0), (op.high, 0.0)):
        assert torch.equal(op.apply(images, magnitude, step), images)
        assert torch.allclose(op.pixels(images, magnitude, step), images, atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(NAMES), st.floats(0, 1), st.floats(-40, 40) | st.sampled_from([-1e6, 1e6]), st.integers(0, 5))
def test_every_power_stays_in_range(name: str, share: float, step: float, seed: int) -> None:
    op = get_op(name)
    images = colours(1, seed=seed, low=-0.2, high=1.3)  # clamped first
    out = op.apply(images, op.low + share * (op.high - op.low), step)
    assert out.shape == images.shape
    if step != 0 and op.low + share * (op.high - op.low) != op.neutral:
        assert 0 <= out.min() <= out.max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_images_of_a_batch_are_treated_one_by_one(name: str) -> None:
    op, images = get_op(name), torch.cat([colours(), colours(seed=1) * 0.3 + 0.5])
    together = op.apply(images, op.default, 1.0)
    alone = torch.cat([op.apply(image, op.default, 1.0) for image in images.split(1)])
    assert torch.allclose(together, alone, atol=1e-6)
    assert len(together) == 4


@pytest.mark.parametrize("step", [1.0, -2.0])
@pytest.mark.parametrize("name", EXACT)
def test_exact_gradients(name: str, step: float) -> None:
    op = get_op(name)
    magnitude = 0.3 if op.neutral == 0 else op.default
    # Away from the kinks at 0 and 1, where clamping begins.
    images = colours(1, low=0.25, high=0.7).double()[..., :6, :7].contiguous().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: op.apply(x, magnitude, step), (images,))
    (gradient,) = torch.autograd.grad(op.apply(images, magnitude, step).sum(), images)
    assert not torch.equal(gradient, torch.ones_like(gradient)) or name in ("color", "contrast", "sharpness")


@pytest.mark.parametrize("name", STRAIGHT)
def test_straight_through_gradients_are_the_identitys(name: str) -> None:
    op, images = get_op(name), colours(low=-0.2, high=1.2).requires_grad_()
    weights = colours(seed=3)
    out = op.apply(images, op.high, 1.0)
    assert not torch.allclose(out, images, atol=0.05)
    (gradient,) = torch.autograd.grad((out * weights).sum(), images)
    assert torch.equal(gradient, weights)
    (gradient,) = torch.autograd.grad((op.apply(images.double(), op.high, 1.0) * weights).sum(), images)
    assert torch.equal(gradient, weights)


def test_gradients_end_where_values_leave_the_range() -> None:
    images = torch.tensor([-0.5, 0.25, 1.5]).view(1, 1, 1, 3).requires_grad_()
    get_op("invert").apply(images, 1.0, 1.0).sum().backward()
    assert images.grad.flatten().tolist() == [0.0, -1.0, 0.0]


@pytest.mark.parametrize("name", NAMES)
def test_precision_and_autocast(name: str) -> None:
    op, images = get_op(name), colours(low=0.1, high=0.8)
    expected = op.apply(images, op.default, 2.0)
    half = op.apply(images.bfloat16(), op.default, 2.0)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, op.apply(images.bfloat16().float(), op.default, 2.0).bfloat16())
    exact = op.apply(images.double(), op.default, 2.0)
    assert exact.dtype == torch.float64
    assert torch.allclose(exact.float(), expected, atol=1e-6)
    if name in ("autocontrast", "color", "contrast", "sharpness"):
        assert not torch.equal(exact, expected.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(op.apply(images, op.default, 2.0), expected)


def test_flat_channels_have_no_contrast_to_stretch() -> None:
    op = get_op("autocontrast")
    flat = (torch.full((1, 3, 4, 5), 0.4) + 1e-6 * torch.rand(1, 3, 4, 5)).requires_grad_()
    out = op.apply(flat, 1.0, 1.0)
    assert torch.equal(out, flat)
    out.sum().backward()
    assert torch.equal(flat.grad, torch.ones_like(flat))
    grey_levels = torch.tensor([0.4, 0.4 + 1 / 255]).view(1, 1, 1, 2)
    assert op.apply(grey_levels, 1.0, 1.0).flatten().tolist() == [0.0, 1.0]


def test_small_images_are_not_sharpened_but_treated() -> None:
    for name in NAMES:
        for size in ((1, 1), (2, 5)):
            images = torch.rand(2, 3, *size)
            assert get_op(name).apply(images, get_op(name).default, 1.0).shape == images.shape
    images = torch.rand(2, 3, 2, 5)
    assert torch.equal(get_op("sharpness").apply(images, 2.0, 1.0), images)


def test_channels_that_are_no_colours() -> None:
    images = colours(C=4)
    for name in ("color", "brightness", "contrast"):
        with pytest.raises(InputError, match=rf"{name} needs images with 1 or 3 channels \(grey or RGB\), got 4"):
            get_op(name).apply(images, 1.5, 1.0)
    for name in set(NAMES) - {"color", "brightness", "contrast"}:
        assert get_op(name).apply(images, get_op(name).default, 1.0).shape == images.shape


def test_geometric_ops_have_no_pixels() -> None:
    with pytest.raises(InputError, match="'rotate' is geometric: it has a matrix, and no pixels"):
        get_op("rotate").apply(colours(), 10.0, 1.0)


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.floats(0.01, 1), st.floats(-30, 30))
def test_the_square_lies_inside_the_image(height: int, width: int, magnitude: float, step: float) -> None:
    top, left, side = cutout_box(magnitude, step, height, width)
    assert 0 <= top <= top + side <= height
    assert 0 <= left <= left + side <= width
    assert side == max(1, math.floor(magnitude * min(height, width) + 0.5))


def test_the_square_moves_with_the_step_and_covers_what_it_says() -> None:
    images = torch.zeros(2, 3, 40, 64)
    frames = [get_op("cutout").apply(images, 0.25, float(step)) for step in (-2, -1, 1, 2, 3, 4)]
    places = [cutout_box(0.25, float(step), 40, 64)[:2] for step in (-2, -1, 1, 2, 3, 4)]
    assert len(set(places)) == 6
    for frame, (top, left) in zip(frames, places, strict=True):
        assert (frame == 0.5).sum() == 2 * 3 * 10 * 10
        assert (frame[:, :, top : top + 10, left : left + 10] == 0.5).all()
    # A low-discrepancy sequence: a hundred squares come close to every corner and the middle.
    many = [cutout_box(0.25, float(step), 40, 64)[:2] for step in range(1, 101)]
    for corner in ((0, 0), (0, 54), (30, 0), (30, 54), (15, 27)):
        assert min(math.dist(corner, place) for place in many) < 8
