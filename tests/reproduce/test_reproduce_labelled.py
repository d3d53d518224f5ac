"""Labels that make the motions of an image's policy, and nothing else."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as F  # noqa: N812 (its usual name)

from image2video.clip.colours import Colours
from image2video.data import Augmentation
from image2video.data.random_frame import RandomFrame
from image2video.data.uniform_augment import UNIFORM_OPS
from image2video.errors import StateError
from image2video.reproduce.labelled import IGNORED, augment_labelled, frame_labelled
from image2video.search import SearchSpace

HEIGHT, WIDTH = 22, 34
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
COLOURS = Colours(MEAN, STD)
CLASSES = 4
PALETTE = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [7, 9, 11]], dtype=torch.uint8)
"""Of the classes, and last of ignored pixels; neither black nor grey, which come in from outside."""
PIXEL_POLICIES = [
    *("autoaugment:imagenet", "autoaugment:cifar10", "autoaugment:svhn", "randaugment:ops=1,magnitude=15"),
    *("randaugment:ops=3,magnitude=30", "trivialaugment", "trivialaugment:wide=false", "uniformaugment:ops=3"),
]
MOVING = [
    (F.affine, {"angle": 20.0, "translate": [3, -2], "scale": 0.8, "shear": [10.0, -5.0]}),
    (F.affine, {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 30.0], "center": [0, 0], "fill": [9]}),
    (F.rotate, {"angle": -35.0}),
    (F.rotate, {"angle": 35.0, "fill": [128]}),
]
COLOURING = [
    (F.adjust_brightness, {"brightness_factor": 1.5}),
    (F.adjust_contrast, {"contrast_factor": 0.3}),
    (F.adjust_saturation, {"saturation_factor": 0.3}),
    (F.adjust_sharpness, {"sharpness_factor": 1.8}),
    (F.autocontrast, {}),
    (F.equalize, {}),
    (F.erase, {"i": 3, "j": 4, "h": 5, "w": 6, "v": torch.tensor(128)}),
    (F.invert, {}),
    (F.posterize, {"bits": 3}),
    (F.solarize, {"threshold": 100}),
]
seeds = st.integers(0, 2**31)


def noise(seed):
    return torch.randint(256, (3, HEIGHT, WIDTH), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def label_maps(seed, maps=1):
    """Blocks of classes, some of them ignored."""
    blocks = torch.randint(CLASSES + 1, (maps, 5, 7), generator=torch.Generator().manual_seed(seed))
    blocks[blocks == CLASSES] = IGNORED
    return blocks.repeat_interleave(5, 1).repeat_interleave(5, 2)[:, :HEIGHT, :WIDTH].to(torch.uint8)


def painted(labels):
    """The label map `(1, H, W)` as an image, each class in its colour."""
    return PALETTE[labels[0].long().clamp(max=CLASSES)].permute(2, 0, 1).contiguous()


def read(image):
    """The label map of a painted image: 255 for pixels of any other colour."""
    labels = torch.full((1, HEIGHT, WIDTH), IGNORED, dtype=torch.uint8)
    for index in range(CLASSES):
        labels[0][(image == PALETTE[index][:, None, None]).all(0)] = index
    return labels


def built(text):
    return Augmentation.parse(text).build(MEAN, STD)


def seeded(seed, function, *values):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        out = function(*values)
        return out, torch.get_rng_state()


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(PIXEL_POLICIES), seeds)
def test_the_image_and_the_draws_are_those_of_classification(text, seed):
    image, apply = noise(seed), built(text)
    expected, state = seeded(seed, apply, image)
    (found, labels), state_here = seeded(seed, augment_labelled, apply, image, label_maps(seed, 2))
    assert type(found) is type(labels) is torch.Tensor
    assert torch.equal(found, expected)
    assert torch.equal(state_here, state)
    assert (labels.shape, labels.dtype) == ((2, HEIGHT, WIDTH), torch.uint8)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["trivialaugment", "trivialaugment:wide=false", "randaugment:ops=1,magnitude=20"]), seeds)
def test_where_one_op_moves_labels_they_are_those_of_the_image(text, seed):
    labels = label_maps(seed)
    (image, moved), _ = seeded(seed, augment_labelled, built(text), painted(labels), labels)
    if not torch.equal(moved, labels):
        assert torch.equal(moved, read(image))


def test_policies_move_labels_as_often_as_they_draw_a_motion():
    labels, moved = label_maps(0), 0
    for seed in range(300):
        (_, found), _ = seeded(seed, augment_labelled, built("randaugment:ops=1,magnitude=20"), noise(0), labels)
        moved += not torch.equal(found, labels)
    assert 80 < moved < 140  # 5 of 14 ops are motions: 107 expected, with a standard deviation of 8


@pytest.mark.parametrize(("function", "options"), MOVING)
@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_motions_move_labels_as_the_image(function, options, seed):
    labels = label_maps(seed)
    image, moved = augment_labelled(lambda x: function(x, **options), painted(labels), labels)
    assert torch.equal(moved, read(image))
    assert not torch.equal(moved, labels)
    assert (moved == IGNORED).any()


@settings(max_examples=60, deadline=None)
@given(seed=seeds, place=st.floats(0, 1), op=st.sampled_from(UNIFORM_OPS))
def test_the_ops_of_uniform_augment_move_labels_or_leave_them(seed, place, op):
    labels = label_maps(seed)
    apply = lambda x: op.apply(x, op.low + place * (op.high - op.low))  # noqa: E731
    (image, moved), _ = seeded(seed, augment_labelled, apply, painted(labels), labels)
    if op.name in ("shear_x", "shear_y", "translate_x", "translate_y", "rotate"):
        assert torch.equal(moved, read(image))
    else:
        assert torch.equal(moved, labels)


@pytest.mark.parametrize(("function", "options"), COLOURING)
def test_colours_leave_labels(function, options):
    image, labels = noise(0) // 2 + 60, label_maps(0, 2)
    found, same = augment_labelled(lambda x: function(x, **options), image, labels)
    assert torch.equal(found, function(image, **options))
    assert not torch.equal(found, image)
    assert torch.equal(same, labels)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from([*PIXEL_POLICIES, "clips:affine5"]), seeds)
def test_what_is_ignored_stays_ignored(text, seed):
    apply, image = built(text), noise(seed)
    labels = torch.full((1, HEIGHT, WIDTH), IGNORED, dtype=torch.uint8)
    together = (apply, image, labels) if not isinstance(apply, RandomFrame) else (apply, COLOURS, image, labels)
    function = frame_labelled if isinstance(apply, RandomFrame) else augment_labelled
    (_, moved), _ = seeded(seed, function, *together)
    assert (moved == IGNORED).all()


def test_an_op_that_loses_the_labels_is_refused():
    with pytest.raises(StateError, match="has an op of which it is not known whether it moves labels"):
        augment_labelled(lambda x: F.horizontal_flip(x), noise(0), label_maps(0))
    with pytest.raises(StateError, match="not known whether it moves labels"):
        augment_labelled(lambda x: x + 1, noise(0), label_maps(0))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["affine5", "gentle"]), seeds)
def test_labels_of_a_random_frame_are_those_of_its_image(space, seed):
    labels, apply = label_maps(seed), built(f"clips:{space}")
    (image, moved), state = seeded(seed, frame_labelled, apply, COLOURS, painted(labels), labels)
    colours = read(image)
    pure = colours != IGNORED  # elsewhere the bilinear image mixes colours
    assert pure.any() or (moved == IGNORED).any()
    assert torch.equal(colours[pure], moved[pure])
    frame, plain_state = seeded(seed, apply, COLOURS.to_normalised(painted(labels).float() / 255))
    assert (COLOURS.to_unit(frame) * 255 - image).abs().max() < 0.51
    assert torch.equal(state, plain_state)


def one_chain(chain, frames=2):
    """Random frames of one chain: the image, or the chain at its first step."""
    return RandomFrame(SearchSpace("one", (chain,), nodes=1, schedule="from_zero"), frames, MEAN, STD)


def shown(chain):
    """Image and labels of a painted map, and of the frames of a chain that are not the image."""
    labels = label_maps(3)
    found = [seeded(seed, frame_labelled, one_chain(chain), COLOURS, painted(labels), labels)[0] for seed in range(8)]
    still = [(image, moved) for image, moved in found if torch.equal(image, painted(labels))]
    assert 0 < len(still) < 8
    assert all(torch.equal(moved, labels) for _, moved in still)
    return labels, next(one for one in found if not torch.equal(one[0], painted(labels)))


def test_whole_pixels_of_a_frame_are_a_slice():
    labels, (image, moved) = shown(f"translate_x({5 / WIDTH}) > translate_y({-3 / HEIGHT})")
    assert torch.equal(moved[0, :-3, 5:], labels[0, 3:, :-5])
    assert (moved[0, -3:] == IGNORED).all()
    assert (moved[0, :, :5] == IGNORED).all()
    mean = torch.tensor(MEAN).mul(255).round().to(torch.uint8)
    assert (image[:, -3:] == mean[:, None, None]).all()


def test_colours_of_a_frame_leave_labels():
    labels, (image, moved) = shown("invert(1)")
    assert torch.equal(image, 255 - painted(labels))
    assert torch.equal(moved, labels)


def test_what_left_the_frame_comes_back_ignored():
    labels, (image, moved) = shown("translate_x(0.5) > invert(1) > translate_x(-0.5)")
    half = WIDTH // 2
    assert torch.equal(moved[0, :, :half], labels[0, :, :half])
    assert torch.equal(image[:, :, :half], 255 - painted(labels)[:, :, :half])
    assert (moved[0, :, half:] == IGNORED).all()
    mean = torch.tensor(MEAN) * 255
    assert (image[:, :, half:].float() - mean[:, None, None]).abs().max() < 1


def test_frames_of_the_first_space_of_the_paper_are_possible():
    labels, apply = label_maps(1), built("clips:autoaugment13")
    for seed in range(20):
        (image, moved), _ = seeded(seed, frame_labelled, apply, COLOURS, noise(seed), labels)
        assert image.shape == (3, HEIGHT, WIDTH)
        assert set(moved.unique().tolist()) <= {*range(CLASSES), IGNORED}


def test_every_policy_that_the_tables_name_can_move_labels():
    for family in ("autoaugment", "randaugment", "trivialaugment", "uniformaugment"):
        grid = [str(policy) for policy in type(Augmentation.parse(family)).grid()]
        assert len(grid) >= 2
        for text in grid:
            assert re.match(family, text)
            for seed in range(4):
                seeded(seed, augment_labelled, built(text), noise(0), label_maps(0))
