"""Scenes of digits: what stands on the canvas, which digits may, and how labels of pixels are divided and read."""

import numpy as np
import pytest
import torch

from image2video.data import CropFlip, MemorySet, load_data, memory_source
from image2video.data import digit_scenes as scenes
from image2video.errors import InputError

MEAN_STD = {"mean": (0.1,), "std": (0.3,)}


@pytest.fixture(scope="module")
def data():
    return load_data("digit_scenes", train_images=200, holdout=0.1)


def test_the_source_says_what_it_is(data):
    assert data.task == "segmentation"
    assert data.classes == ("background", *"0123456789")
    assert data.input_size == (1, 48, 48)
    assert (data.train.num_images, data.holdout.num_images, data.test.num_images) == (180, 20, 500)
    assert data.describe()["task"] == "segmentation"
    assert "task" not in load_data("digits", train_images=20).describe()


def test_the_scenes_are_always_the_same_and_of_the_digits(data):
    assert memory_source.load_digit_scenes is scenes.load_digit_scenes  # else what is kept is compared with itself
    (images, labels), (test_images, test_labels) = scenes.load_digit_scenes()
    assert (images.shape, labels.shape) == ((1500, 1, 48, 48), (1500, 48, 48))
    assert images.dtype == labels.dtype == torch.uint8
    again = scenes.load_digit_scenes()
    assert torch.equal(images, again[0][0])
    assert torch.equal(test_labels, again[1][1])
    assert not torch.equal(images[:500], test_images)
    ink = images[:, 0].float() > 0.3 * 255
    assert torch.equal(ink, labels > 0)
    assert torch.bincount(labels.flatten(), minlength=11).min() > 30_000
    other = load_data("digit_scenes", train_images=200, holdout=0.1, seed=1)
    assert torch.equal(other.test.labels, data.test.labels)
    assert not torch.equal(other.train.labels, data.train.labels)


def test_no_test_digit_is_in_a_training_scene(monkeypatch):
    """Training digits are squares of 200 or 210, test digits of 100 or 110; the labels tell which is which."""

    def marked(size):
        def part(low):
            squares = torch.full((2, 1, size, size), low, dtype=torch.uint8)
            squares[1] += 10
            return squares, torch.tensor([3, 7])

        return part(200), part(100)

    monkeypatch.setattr(scenes, "load_digits", marked)
    monkeypatch.setattr(scenes, "_SCENES", (40, 20))
    monkeypatch.setattr(scenes, "_LEAST_SEEN", 0.2)  # squares leave less room than digits do
    for (images, labels), low in zip(scenes.load_digit_scenes(), (200, 100), strict=True):
        assert set(images.unique().tolist()) == {0, low, low + 10}
        assert torch.equal(images[:, 0] == low, labels == 4)
        assert torch.equal(images[:, 0] == low + 10, labels == 8)


@pytest.mark.parametrize("seed", range(20))
def test_every_digit_stays_visible(seed):
    digits = np.full((5, 6, 6), 255, np.uint8)
    image, label = np.zeros((24, 24), np.uint8), np.zeros((24, 24), np.uint8)
    scenes._compose(image, label, digits, np.arange(5), np.random.default_rng(seed))
    seen = np.bincount(label.flatten(), minlength=6)
    assert seen[1:].min() >= 0.75 * 36
    assert seen[1:].max() <= 36
    assert ((image == 255) == (label > 0)).all()


def test_three_to_six_digits():
    digits, classes = np.eye(10, 16, dtype=np.uint8)[:, :, None].repeat(16, 2) * 255, np.arange(10)
    _, labels = scenes._scenes(digits, classes, 60, 48, np.random.default_rng(0))
    rows = [(label > 0).sum() for label in labels]  # every digit is one row of 16 pixels, three quarters of it seen
    assert min(rows) >= 2 * 16
    assert max(rows) <= 6 * 16
    assert len({int(r) for r in rows}) > 3


def test_options(data):
    small = load_data("digit_scenes", image_size=24, train_images=10)
    assert small.input_size == (1, 24, 24)
    assert small.train.labels.shape == (9, 24, 24)
    for options, message in (
        ({"image_size": 20}, "at least 24 pixels per side, got image_size=20"),
        ({"flip": True}, "a mirrored digit is another shape"),
        ({"train_images": 1501}, "1500 training images in 11 classes; ask for 1 to 1500"),
    ):
        with pytest.raises(InputError, match=message):
            load_data("digit_scenes", **options)


def test_batches_give_normalised_images_and_a_class_per_pixel(data):
    batches = data.train.batches(64, augment=True, shuffle=True, seed=3)
    found = list(batches.epoch(0))
    assert sum(len(labels) for _, labels in found) == 180
    for images, labels in found:
        assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
        assert labels.shape == (len(images), 48, 48)
        ink = images[:, 0] * data.std[0] + data.mean[0] > 0.3
        assert torch.equal(ink, labels > 0)  # they have been moved together, or not at all
    again = list(data.train.batches(64, augment=True, shuffle=True, seed=3).epoch(0))
    assert all(torch.equal(a[1], b[1]) for a, b in zip(found, again, strict=True))


def test_labels_of_pixels_are_divided_by_a_seeded_draw():
    images = torch.zeros(20, 1, 4, 6, dtype=torch.uint8)
    labels = torch.arange(20, dtype=torch.uint8).view(-1, 1, 1).expand(20, 4, 6)
    whole = MemorySet(images, labels, **MEAN_STD)
    first, second = whole.split(0.25, seed=0)
    marks = [part.labels[:, 0, 0].tolist() for part in (first, second)]
    assert len(marks[0]) == 5
    assert sorted(marks[0] + marks[1]) == list(range(20))
    assert marks[0] != whole.split(0.25, seed=1)[0].labels[:, 0, 0].tolist()
    assert whole.take(7, seed=0).labels.dtype == torch.int64
    with pytest.raises(InputError, match="cannot draw 21 images out of 20"):
        whole.take(21, seed=0)
    with pytest.raises(InputError, match="not labels of pixels"):
        MemorySet(images, labels, augment=CropFlip(pad=1), **MEAN_STD)
