"""Data sources named by a text, and what they refuse."""

import re

import numpy as np
import pytest
import torch

from image2video.data import load_data
from image2video.errors import InputError, InputTypeError, MissingError

RNG = np.random.default_rng(0)


def write_npz(path, **changes):
    arrays = {
        "x_train": RNG.integers(0, 256, (40, 10, 14, 3), dtype=np.uint8),
        "y_train": np.arange(40) % 4,
        "x_test": RNG.integers(0, 256, (12, 10, 14, 3), dtype=np.uint8),
        "y_test": np.arange(12) % 4,
    }
    arrays.update(changes)
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return f"npz:{path}"


def images_of(part):
    return torch.cat([images for images, _ in part.batches(64).epoch(0)])


def test_digits_are_divided_by_class_and_share_one_test_set():
    data = [load_data("digits", train_images=300, holdout=0.2, seed=seed) for seed in (0, 1)]
    for source in data:
        assert (source.train.num_images, source.holdout.num_images, source.test.num_images) == (240, 60, 599)
        assert source.input_size == (1, 16, 16)
        assert source.num_classes == 10
        assert (torch.bincount(source.train.labels) - 24).abs().max() <= 1
    assert torch.equal(images_of(data[0].test), images_of(data[1].test))
    assert not torch.equal(images_of(data[0].train), images_of(data[1].train))


def test_no_image_is_in_two_parts():
    data = load_data("digits", holdout=0.3)
    parts = [images_of(part).flatten(1) for part in (data.train, data.holdout, data.test)]
    assert sum(len(part) for part in parts) == 1797
    assert len(torch.unique(torch.cat(parts), dim=0)) == 1797


def test_digits_keep_their_size_option_and_are_normalised():
    data = load_data("digits", image_size=8, holdout=0)
    assert data.holdout is None
    assert data.input_size == (1, 8, 8)
    images = images_of(data.train)
    assert abs(float(images.mean())) < 1e-4
    assert abs(float(images.std()) - 1) < 1e-2


def test_npz_reads_colour_and_grey(tmp_path):
    colour = load_data(write_npz(tmp_path / "colour.npz"), holdout=0.25)
    assert (colour.train.num_images, colour.holdout.num_images, colour.test.num_images) == (30, 10, 12)
    assert colour.input_size == (3, 10, 14)
    assert colour.short_name == "npz:colour.npz"
    grey = load_data(
        write_npz(tmp_path / "grey.npz", x_train=np.zeros((40, 9, 7), np.uint8), x_test=np.zeros((12, 9, 7), np.uint8))
    )
    assert grey.input_size == (1, 9, 7)
    assert images_of(grey.train).isfinite().all()  # constant images have no deviation to divide by


def test_npz_content_arrives_as_written(tmp_path):
    images = RNG.integers(0, 256, (8, 5, 7, 3), dtype=np.uint8)
    spec = write_npz(tmp_path / "a.npz", x_test=images, y_test=np.arange(8) % 4, x_train=np.repeat(images, 5, 0))
    data = load_data(spec, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    expected = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    torch.testing.assert_close(images_of(data.test), expected)
    assert torch.equal(data.test.raw(2), torch.from_numpy(images[2]).permute(2, 0, 1))


def test_npz_resizes_and_names_classes(tmp_path):
    data = load_data(write_npz(tmp_path / "a.npz", classes=np.array(["a", "b", "c", "d"])), image_size=6)
    assert data.input_size == (3, 6, 6)
    assert data.classes == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"y_test": None, "x_test": None}, InputError, "lacks x_test, y_test; it holds x_train, y_train"),
        ({"x_train": np.zeros((40, 10, 14, 3), np.float32)}, InputTypeError, "images must be uint8"),
        ({"x_train": np.zeros((40, 3, 10, 14), np.uint8)}, InputError, "N×H×W×C"),
        ({"y_train": np.arange(39) % 4}, InputError, "one label per image"),
        ({"y_train": np.arange(40) % 4 - 1}, InputError, "labels go from -1"),
        ({"y_train": np.linspace(0, 3, 40)}, InputTypeError, "whole numbers"),
        ({"y_test": np.full(12, 4)}, InputError, "test labels are 4 … 4; with 4 classes they must be 0 … 3"),
        ({"y_train": np.arange(40) % 4 * 2}, InputError, "no training image has label 1; 3 of 7 classes are empty"),
        ({"x_test": np.zeros((12, 10, 10, 3), np.uint8)}, InputError, "10×14×3, test images 10×10×3"),
        ({"x_train": np.zeros((0, 9, 9), np.uint8), "y_train": np.zeros(0, int)}, InputError, "there is no image"),
        ({"classes": np.array(["a", "b"])}, InputError, "names 2 classes"),
        ({"y_train": np.array([None] * 40, dtype=object)}, InputError, "without pickle"),
    ],
)
def test_npz_content_that_cannot_be_used(tmp_path, changes, error, message):
    with pytest.raises(error, match=re.escape(message)):
        load_data(write_npz(tmp_path / "bad.npz", **changes))


def test_unreadable_npz_is_named(tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"not a zip file")
    with pytest.raises(InputError, match=r"bad\.npz is no \.npz file"):
        load_data(f"npz:{tmp_path / 'bad.npz'}")
    with pytest.raises(MissingError, match="no file"):
        load_data(f"npz:{tmp_path / 'none.npz'}")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "cifar",
            "unknown data source 'cifar'; it must be one of: digits, digit_scenes, npz:PATH, folder:PATH, "
            "torchvision:NAME@ROOT",
        ),
        ("digits:8", "must be written as digits"),
        ("npz", "must be written as npz:PATH"),
        ("npz:", "must be written as npz:PATH"),
        ("torchvision:CIFAR10", "must be written as torchvision:NAME@ROOT"),
        ("torchvision:CIFAR11@x", "did you mean CIFAR10"),
        ("torchvision:CocoDetection@x", "no classification set 'CocoDetection'"),
    ],
)
def test_texts_that_name_nothing(spec, message):
    with pytest.raises(InputError, match=re.escape(message)):
        load_data(spec)


def test_missing_torchvision_data_says_how_to_get_it(tmp_path):
    with pytest.raises(MissingError, match=r"torchvision\.datasets\.CIFAR10\(.*download=True"):
        load_data(f"torchvision:CIFAR10@{tmp_path}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_images": 9}, "train_images=9 is not possible: 'digits' has 1198 training images in 10 classes"),
        ({"train_images": 2000}, "ask for 10 to 1198"),
        ({"holdout": 1.0}, "fraction between 0 and 1"),
        ({"train_images": 20, "holdout": 0.01}, "leaves one part empty"),
        ({"image_size": 0}, "image_size"),
        ({"image_size": 8.5}, "image_size must be a whole number of at least 1 pixel, got 8.5"),
        ({"std": (0.0,)}, "std must be above 0"),
        ({"flip": True}, "mirrored digit"),
        ({"mean": (0.5, 0.5, 0.5)}, "mean needs a value for each of 1 channels, got 3"),
        ({"augment": "randaugmnt"}, "unknown augmentation 'randaugmnt'; did you mean 'randaugment'?"),
        ({"augment": "randaugment:magnitude=31"}, "randaugment: magnitude must be 0 … 30, got 31"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        load_data("digits", **options)
