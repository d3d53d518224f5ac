"""How images are made ready: as asked, as the run says, as the published config says, the data's own."""

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

from image2video import VideoWrap
from image2video.data import load_data
from image2video.data.preparation import Preparation, preparation_sentence
from image2video.data.resizing import Resizing
from image2video.data.transforms import TrainTransform, eval_transform
from image2video.errors import InputError, MissingError
from image2video.integrations.timm_backbones import build
from image2video.runs.folders import OutputDirectory, atomic_write_json

RNG = np.random.default_rng(5)
HALF = (0.5, 0.5, 0.5)


def write_images(root, parts=("train", "val"), classes=("ant", "bee"), count=2):
    for part in parts:
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = RNG.integers(0, 256, (40, 61, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{index}.png")
    return f"folder:{root}"


def write_arrays(path, **changes):
    arrays = {"x_train": RNG.integers(0, 256, (8, 12, 12, 3), dtype=np.uint8), "y_train": np.arange(8) % 2}
    arrays |= {"x_test": arrays["x_train"][:4] // 2, "y_test": arrays["y_train"][:4], **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return f"npz:{path}"


def load(spec, **options):
    return load_data(spec, workers=0, holdout=0, **options)


def first(part):
    return next(iter(part.batches(4).epoch(0)))[0]


def recorded(
    folder, *, size=(3, 20, 20), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), resizing=None, name="a.safetensors"
):
    run = OutputDirectory(folder, "train")
    dataset = {"input_size": list(size), "mean": list(mean), "std": list(std)}
    run.note(dataset=dataset | ({} if resizing is None else {"resizing": resizing.to_dict()}))
    (run / name).write_bytes(b"weights")
    run.finish()
    return folder


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize(("height", "width"), [(40, 61), (61, 40), (9, 13)])
def test_evaluation_reads_an_image_as_timm_does(mode, height, width):
    image = Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))
    config = {"input_size": (3, 24, 24), "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": mode}
    expected = create_transform(**config, mean=HALF, std=(0.2, 0.3, 0.4), is_training=False)(image)
    found = eval_transform(24, HALF, (0.2, 0.3, 0.4), Resizing("bicubic", 0.9, mode))(image)
    torch.testing.assert_close(found, expected)


def test_the_published_config_says_how_files_are_read(tmp_path):
    spec = write_images(tmp_path)
    model = timm.create_model("test_resnet", num_classes=2)
    for net in (model, VideoWrap(model, "none", T=2)):
        data = load(spec, model=net)
        assert data.input_size == (3, 160, 160)
        assert data.mean == data.std == HALF
        assert data.resizing == Resizing("bilinear", 0.95, "center")
    image = Image.open(tmp_path / "val" / "ant" / "0.png")
    expected = create_transform(**resolve_data_config({}, model=model), is_training=False)(image)
    torch.testing.assert_close(first(data.test)[0], expected)
    assert data.describe()["resizing"] == {"interpolation": "bilinear", "crop_fraction": 0.95, "crop_mode": "center"}
    assert isinstance(data.train._loading.train, TrainTransform)
    assert load(spec).mean != HALF  # nobody said what network it is for


def test_a_network_without_published_weights_leaves_the_data_as_they_are(tmp_path):
    assert Preparation.of(build("cifar_resnet8")) is None
    assert Preparation.of(torch.nn.Linear(2, 2)) is None
    spec = write_arrays(tmp_path / "a.npz")
    assert load(spec, model=build("cifar_resnet8")).describe() == load(spec).describe()


def test_images_in_memory_keep_their_size_unless_the_network_takes_one_alone(tmp_path):
    spec = write_arrays(tmp_path / "a.npz")
    free, fixed = timm.create_model("test_resnet"), timm.create_model("test_vit")
    data = load(spec, model=free)
    assert data.input_size == (3, 12, 12)
    assert data.mean == HALF
    assert load(spec, model=fixed).input_size == (3, 160, 160)
    assert load(spec, model=timm.create_model("test_vit", img_size=32)).input_size == (3, 32, 32)
    with pytest.warns(UserWarning, match=r"published config of test_vit.r160_in1k \(mean .* there, 0.1 0.1 0.1 here"):
        asked = load(spec, model=fixed, image_size=16, mean=(0.1,) * 3)
    assert asked.input_size == (3, 16, 16)  # another size is no conflict with a published config
    grey = write_arrays(
        tmp_path / "grey.npz", x_train=np.full((8, 12, 12), 9, np.uint8), x_test=np.zeros((4, 12, 12), np.uint8)
    )
    assert load(grey, model=free).mean == pytest.approx((9 / 255,))  # the config has three channels


def test_what_a_run_recorded_comes_before_the_config_and_after_what_is_asked(tmp_path):
    spec, arrays = write_images(tmp_path / "images"), write_arrays(tmp_path / "a.npz")
    run = recorded(tmp_path / "run", resizing=Resizing("bicubic", 0.8, "squash"))
    for weights in (run, run / "a.safetensors"):
        data = load(spec, model=weights)
        assert data.input_size == (3, 20, 20)
        assert (data.mean, data.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
        assert data.resizing == Resizing("bicubic", 0.8, "squash")
        assert load(arrays, model=str(weights)).input_size == (3, 20, 20)
    with pytest.warns(UserWarning, match="leave the options out to have the same") as caught:
        data = load(spec, model=run, image_size=16, std=(0.4, 0.5, 0.6), mean=HALF, resize="bilinear")
    assert len(caught) == 1
    text = str(caught[0].message)
    for part in (f"run {run}", "image_size 20 there, 16 here", "mean 0.1 0.2 0.3 there, 0.5 0.5 0.5 here"):
        assert part in text
    assert "resize bicubic there, bilinear here" in text
    assert "std" not in text
    assert (data.input_size, data.mean) == ((3, 16, 16), HALF)
    older = recorded(tmp_path / "older", size=(3, 12, 12))  # of arrays, or of files read as by default
    assert load(spec, model=older).resizing == Resizing()
    (run / "stranger.safetensors").write_bytes(b"not of this run")
    assert Preparation.of(run / "stranger.safetensors") is None
    with pytest.raises(MissingError, match="no folder or file"):
        load(spec, model=tmp_path / "nothing")
    atomic_write_json(run / "run.json", {"kind": "train", "contents": ["a.safetensors"]})
    with pytest.raises(InputError, match="does not say which images the run had"):
        load(spec, model=run)


def test_a_saved_wrapper_says_what_it_knows_of_its_images(tmp_path):
    net = VideoWrap(build("cifar_resnet8", num_classes=2), "none", T=2, input_size=(3, 16, 16), mean=HALF, std=HALF)
    net.save_pretrained(tmp_path / "saved")
    data = load(write_arrays(tmp_path / "a.npz"), model=tmp_path / "saved")
    assert (data.input_size, data.mean, data.std) == ((3, 16, 16), HALF, HALF)
    published = Preparation.of(timm.create_model("test_resnet"))
    both = Preparation.of(tmp_path / "saved").or_else(published)
    assert (both.image_size, both.crop_fraction) == (16, 0.95)
    assert "else published config" in both.origin


def test_the_line_names_who_says_what(tmp_path):
    known = Preparation("run runs/a", image_size=20, mean=HALF, std=HALF, resize="bicubic", recorded=True)
    asked = {"image_size": 32}
    line = preparation_sentence((3, 32, 32), HALF, HALF, Resizing("bicubic"), asked=asked, known=known)
    assert line == (
        "images: 32×32 px (as asked); mean 0.5 0.5 0.5, std 0.5 0.5 0.5, bicubic resize, centre crop of 0.875 "
        "(run runs/a)"
    )
    line = preparation_sentence((1, 12, 14), (0.25,), (0.5,), None, asked={}, known=None)
    assert line == "images: 12×14 px, mean 0.25, std 0.5 (the data's own)"


def test_options_without_effect_are_refused(tmp_path):
    spec = write_arrays(tmp_path / "a.npz")
    with pytest.raises(InputError, match="crop_fraction and crop_mode and resize: no effect"):
        load(spec, crop_fraction=0.9, crop_mode="squash", resize="bicubic")
    with pytest.raises(InputError, match="is for image files"):
        load(spec, image_size=6, resize="lanczos")
    with pytest.raises(InputError, match="no effect on digits"):
        load("digits", resize="bicubic")
    images = write_images(tmp_path / "images")
    with pytest.raises(InputError, match="unknown resize 'cubic'"):
        load(images, resize="cubic")
    with pytest.raises(InputError, match=r"crop_fraction must be above 0 and at most 1, got 1\.5"):
        load(images, crop_fraction=1.5)
    data = load(spec, image_size=6, resize="bicubic")
    assert data.resizing == Resizing("bicubic", 1.0, "squash")  # which is what is done to arrays
    assert not torch.equal(first(data.test), first(load(spec, image_size=6).test))


def test_only_the_part_that_is_asked_for_is_read(tmp_path):
    spec = write_images(tmp_path / "val-only", parts=("val",))
    data = load(spec, parts=("test",), image_size=8)
    assert (data.classes, data.test.num_images, data.train.num_images) == (("ant", "bee"), 4, 0)
    assert "train_images" not in data.describe()
    with pytest.raises(InputError, match=r"the train part of folder:.* was not read"):
        data.train.batches(2)
    with pytest.raises(MissingError, match=r"no folder .*train"):
        load(spec)
    only_train = load(write_images(tmp_path / "train-only", parts=("train",)), parts=("train",), image_size=8)
    assert (only_train.train.num_images, only_train.test.num_images) == (4, 0)
    with pytest.raises(InputError, match="parts must be some of train, test"):
        load(spec, parts=())


def test_the_order_of_the_classes_is_that_of_training(tmp_path):
    spec = write_images(tmp_path, parts=("train",), classes=("ant", "bee", "cow"))
    for name in ("bee", "cow"):
        (tmp_path / "val" / name).mkdir(parents=True)
        Image.fromarray(RNG.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(tmp_path / "val" / name / "0.png")
    data = load(spec, parts=("test",), image_size=8)  # val/ lacks a class, train/ is there: its order counts
    assert data.test.labels.tolist() == [1, 2]
    with pytest.raises(InputError, match="hold different classes"):
        load(spec)
    data = load(spec, parts=("test",), image_size=8, classes=("cow", "dog", "bee", "ant"))
    assert data.num_classes == 4
    assert data.test.labels.tolist() == [2, 0]
    with pytest.raises(InputError, match="not among the 2 given ones: ant"):
        load(spec, parts=("test",), classes=("bee", "cow"))
    with pytest.raises(InputError, match="twice"):
        load(spec, parts=("test",), classes=("bee", "bee"))
    with pytest.raises(InputError, match="classes=5 does not fit"):
        load(spec, parts=("test",), classes=5)


def test_arrays_need_their_training_part_only_for_mean_and_std(tmp_path):
    whole = load(write_arrays(tmp_path / "a.npz"))
    part = load(f"npz:{tmp_path / 'a.npz'}", parts=("test",))
    assert (part.mean, part.std) == (whole.mean, whole.std)
    assert torch.equal(first(part.test), first(whole.test))
    spec = write_arrays(tmp_path / "test.npz", x_train=None, y_train=None)
    with pytest.raises(InputError, match=r"lacks x_train, y_train; it holds .* unless they are given"):
        load(spec, parts=("test",))
    data = load(spec, parts=("test",), mean=HALF, std=HALF, classes=7)
    assert (data.num_classes, data.test.num_images) == (7, 4)
    assert data.test.labels.tolist() == [0, 1, 0, 1]
    assert load(spec, parts=("test",), model=recorded(tmp_path / "run", size=(3, 12, 12))).mean == (0.1, 0.2, 0.3)


def test_labels_of_pixels_follow_the_names_too():
    names = tuple(reversed(load_data("digit_scenes", holdout=0).classes))
    plain, turned = (
        load_data("digit_scenes", parts=("test",)),
        load_data("digit_scenes", parts=("test",), classes=names),
    )
    assert torch.equal(turned.test.labels, len(names) - 1 - plain.test.labels)
    assert json.dumps(turned.describe()) == json.dumps(plain.describe())
