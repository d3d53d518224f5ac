"""Image folders, their layouts and their broken files; torchvision sets on disk."""

import json
import os
import pickle
import random
import re

import numpy as np
import pytest
import torch
from PIL import Image

from image2video.data import load_data
from image2video.data.augment import FAMILIES
from image2video.data.resizing import Resizing
from image2video.data.transforms import TrainTransform, eval_transform
from image2video.errors import InputError, MissingError
from image2video.protocols import Batches, ImageSet

# torch warns where there are fewer processors than workers, which says nothing about the batches.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

RNG = np.random.default_rng(3)


def write_image(path, height=20, width=30):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)


def write_folder(root, classes=("ant", "bee"), train=6, val=2):
    for name in classes:
        for part, count in (("train", train), ("val", val)):
            for i in range(count):
                write_image(root / part / name / f"{i}.jpg")
    return f"folder:{root}"


def load(spec, **options):
    return load_data(spec, image_size=8, workers=0, **{"holdout": 0.25, **options})


def epoch_of(part, epoch=0, **options):
    images, labels = zip(*part.batches(4, **options).epoch(epoch), strict=True)
    return torch.cat(images), torch.cat(labels)


def test_folder_is_train_and_val(tmp_path):
    data = load(write_folder(tmp_path))
    assert isinstance(data.train, ImageSet)
    assert isinstance(data.train.batches(2), Batches)
    assert data.classes == ("ant", "bee")
    assert (data.train.num_images, data.holdout.num_images, data.test.num_images) == (9, 3, 4)
    images, labels = epoch_of(data.test)
    assert images.shape == (4, 3, 8, 8)
    assert labels.tolist() == [0, 0, 1, 1]
    assert data.test.raw(0).shape == (3, 20, 30)


def test_a_folder_of_classes_is_a_test_set(tmp_path):
    write_folder(tmp_path)
    flat = load(f"folder:{tmp_path / 'val'}", parts=("test",))
    parts = load(f"folder:{tmp_path}", parts=("test",))
    assert flat.classes == parts.classes
    assert all(map(torch.equal, epoch_of(flat.test), epoch_of(parts.test)))
    with pytest.raises(MissingError, match="train/ and val/"):
        load(f"folder:{tmp_path / 'val'}")
    (tmp_path / "val" / "train").mkdir()  # then it is a folder with parts, of which one is missing
    with pytest.raises(MissingError, match="val/val"):
        load(f"folder:{tmp_path / 'val'}", parts=("test",))


def test_augmentation_depends_on_seed_epoch_and_image_alone(tmp_path):
    data = load(write_folder(tmp_path), holdout=0, augment="trivialaugment")
    options = {"augment": True, "shuffle": True, "seed": 5}
    first = epoch_of(data.train, 1, **options)
    state = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
    assert torch.equal(first[0], epoch_of(data.train, 1, **options)[0])
    assert torch.equal(state[0], torch.get_rng_state())
    assert (state[1] == np.random.get_state()[1]).all()
    assert state[2] == random.getstate()
    assert not torch.equal(first[0], epoch_of(data.train, 2, **options)[0])
    assert not torch.equal(first[0], epoch_of(data.train, 1, **{**options, "seed": 6})[0])
    with_workers = data.train.with_loading(workers=2)
    assert torch.equal(first[0], epoch_of(with_workers, 1, **options)[0])


def test_broken_images_are_named(tmp_path, monkeypatch):
    data = load(write_folder(tmp_path), holdout=0)
    broken = tmp_path / "train" / "bee" / "3.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    for part in (data.train, data.train.with_loading(workers=1)):
        with pytest.raises(InputError, match=rf"cannot read the image .*{re.escape('bee/3.jpg')}.*replace or delete"):
            epoch_of(part)
    broken.write_bytes(b"no image at all")
    with pytest.raises(InputError, match=re.escape("bee/3.jpg")):
        epoch_of(data.train)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(InputError, match="decompression bomb"):
        epoch_of(data.train)


def test_links_and_pipes_count_no_image_twice(tmp_path):
    """A loop of links made 126 images of 6, and a pipe was waited for."""
    spec = write_folder(tmp_path, train=3)
    ant = tmp_path / "train" / "ant"
    for name, target in (("up", ".."), ("itself", "."), ("top", "../.."), ("more/again", "..")):
        (ant / name).parent.mkdir(exist_ok=True)
        (ant / name).symlink_to(target)
    (ant / "copy.jpg").symlink_to("0.jpg")
    os.mkfifo(ant / "pipe.jpg")
    with pytest.warns(UserWarning, match=r"ant: 6 paths are links to what is counted already, or no regular files"):
        data = load(spec, holdout=0)
    assert data.train.num_images == 6
    assert epoch_of(data.train)[1].tolist() == [0, 0, 0, 1, 1, 1]


def test_links_to_files_and_folders_elsewhere_are_followed(tmp_path):
    write_folder(tmp_path / "real")
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "ant").symlink_to(tmp_path / "real" / part / "ant")
        (tmp_path / part / "bee" / "deep").mkdir(parents=True)
        for path in (tmp_path / "real" / part / "bee").iterdir():
            (tmp_path / part / "bee" / "deep" / path.name).symlink_to(path)
    data = load(f"folder:{tmp_path}", holdout=0)
    assert (data.train.num_images, data.test.num_images) == (12, 4)
    (tmp_path / "train" / "bee" / "deep" / "gone.jpg").symlink_to("nowhere.jpg")
    with pytest.raises(MissingError, match=r"gone\.jpg is a link to nowhere\.jpg, which is not there"):
        load(f"folder:{tmp_path}")


def test_a_file_in_two_classes_is_refused(tmp_path):
    spec = write_folder(tmp_path)
    (tmp_path / "train" / "bee" / "same.jpg").symlink_to(tmp_path / "train" / "ant" / "1.jpg")
    with pytest.raises(InputError, match=r"bee/same\.jpg and .*ant/1\.jpg are one file in two classes"):
        load(spec)


def test_many_links_are_walked_once(tmp_path):
    """Every folder has two links to the next: 2^30 paths, 30 folders."""
    write_folder(tmp_path)
    folder = tmp_path / "train" / "ant"
    store = tmp_path / "store"
    for level in range(30):
        (store / str(level)).mkdir(parents=True)
        for name in "ab":
            (folder / name).symlink_to(store / str(level))
        folder = store / str(level)
    write_image(folder / "last.jpg")
    with pytest.warns(UserWarning, match="30 paths are links"):
        assert load(f"folder:{tmp_path}", holdout=0).train.num_images == 13


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(MissingError, match="no folder"):
        load(f"folder:{tmp_path / 'none'}")
    with pytest.raises(MissingError, match="train"):
        load(f"folder:{tmp_path}")
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError, match="holds no class folder"):
        load(f"folder:{tmp_path}")
    spec = write_folder(tmp_path)
    (tmp_path / "train" / "cow").mkdir()
    (tmp_path / "train" / "cow" / "notes.txt").write_text("moo")
    with pytest.raises(InputError, match=r"cow holds no image"):
        load(spec)
    write_image(tmp_path / "train" / "cow" / "0.png")
    with pytest.raises(InputError, match=r"only in train/ cow, only in val/ none"):
        load(spec)


def test_tiny_imagenet_as_it_is_distributed(tmp_path):
    for wnid in ("n01", "n02"):
        for i in range(3):
            write_image(tmp_path / "train" / wnid / "images" / f"{wnid}_{i}.JPEG")
    for i in range(4):
        write_image(tmp_path / "val" / "images" / f"val_{i}.JPEG")
    table = tmp_path / "val" / "val_annotations.txt"
    table.write_text("".join(f"val_{i}.JPEG\tn0{2 - i % 2}\t0\t0\t9\t9\n" for i in range(4)))
    data = load(f"folder:{tmp_path}", holdout=0)
    assert data.classes == ("n01", "n02")
    assert data.train.num_images == 6
    assert epoch_of(data.test)[1].tolist() == [1, 0, 1, 0]
    table.write_text("val_0.JPEG\tn99\t0\t0\t9\t9\n")
    with pytest.raises(InputError, match="'n99'"):
        load(f"folder:{tmp_path}")
    table.write_text("gone.JPEG\tn01\t0\t0\t9\t9\n")
    with pytest.raises(MissingError, match=r"gone\.JPEG"):
        load(f"folder:{tmp_path}")


def test_shards_of_files(tmp_path):
    data = load(write_folder(tmp_path), holdout=0)
    whole = list(data.train.batches(5, shuffle=True).epoch(0))
    parts = [list(data.train.batches(5, shuffle=True, shard=(rank, 2)).epoch(0)) for rank in (0, 1)]
    assert len(whole) == 3
    for number, (images, _) in enumerate(whole):
        assert torch.equal(parts[1][number][0], images[1::2])


def test_transforms_give_the_size_and_the_policies_work():
    image = Image.fromarray(RNG.integers(0, 256, (40, 60), dtype=np.uint8))  # grey, wide
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    evaluated = eval_transform(16, mean, std)(image)
    assert evaluated.shape == (3, 16, 16)
    assert torch.equal(evaluated, eval_transform(16, mean, std)(image))
    policies = [cls.grid()[0] for cls in FAMILIES.values()]
    assert len(policies) == 5
    for policy in [None, *policies]:
        sample = TrainTransform(16, mean, std, policy=policy)(image)
        assert sample.shape == (3, 16, 16)
        assert sample.dtype == torch.float32
        assert type(sample) is torch.Tensor


def test_the_centre_crop_is_the_centre():
    array = np.zeros((64, 96, 3), np.uint8)
    array[:, 32:64] = 255
    image = eval_transform(64, (0.0,) * 3, (1.0,) * 3, Resizing(crop_fraction=1.0))(Image.fromarray(array))
    assert image.shape == (3, 64, 64)
    assert (image[:, :, :16] == 0).all()
    assert (image[:, :, 16:48] == 1).all()


def test_torchvision_sets_with_arrays_live_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.CIFAR10._check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5=None: True)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rows = {}
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        rows[name] = RNG.integers(0, 256, (20, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": rows[name], "labels": [i % 10 for i in range(20)]}))
    names = ["plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    data = load_data(f"torchvision:CIFAR10@{tmp_path}", holdout=0)
    assert (data.train.num_images, data.test.num_images) == (100, 20)
    assert data.classes == tuple(names)
    assert data.short_name == "torchvision:CIFAR10"
    assert torch.equal(data.test.raw(4), torch.from_numpy(rows["test_batch"][4].reshape(3, 32, 32)))


def test_other_torchvision_sets_are_read_when_needed(tmp_path):
    root = tmp_path / "food-101"
    names = ["apple_pie", "baklava"]
    (root / "meta").mkdir(parents=True)
    for part, ids in (("train", range(4)), ("test", range(4, 6))):
        for name in names:
            for i in ids:
                write_image(root / "images" / name / f"{i}.jpg")
        (root / "meta" / f"{part}.json").write_text(json.dumps({name: [f"{name}/{i}" for i in ids] for name in names}))
    data = load(f"torchvision:Food101@{tmp_path}", holdout=0)
    assert (data.train.num_images, data.test.num_images, data.num_classes) == (8, 4, 2)
    images, labels = epoch_of(data.test)
    assert images.shape == (4, 3, 8, 8)
    assert sorted(labels.tolist()) == [0, 0, 1, 1]
