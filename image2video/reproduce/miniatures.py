"""Data sets of a few generated images in the layouts on disk of those of the tables.

ImageNet and Tiny-ImageNet as they are unpacked, CIFAR as arrays (torchvision takes no files but the true ones), Pascal
VOC 2012, Cityscapes and CamVid as mmsegmentation reads them. Images for segmentation hold a few of the classes, the
first and the last among them, each in a colour of its own, so that a network can learn them. The same seed writes the
same files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

Size = tuple[int, int]
"""(height, width) in pixels."""

SIZE: Size = (48, 64)
VOC_CLASSES, CITYSCAPES_CLASSES, CAMVID_CLASSES = 21, 19, 11
IMAGENET_CLASSES = 1000
IGNORED, CAMVID_UNLABELLED = 255, 11
KINDS = 6
_EIGHTH_CITYSCAPES, _FIFTH_CAMVID = (128, 256), (72, 96)
_WNIDS = ("n01440764", "n01443537")
_TRAIN, _TEST = 3, 1  # images per class, for classification


def make_imagenet(root: Path, *, size: Size = (375, 500), seed: int = 0) -> Path:
    """`train/WNID/*.JPEG`, `val/WNID/*.JPEG` and `meta.bin` under root, which is returned."""
    rng, root = np.random.default_rng(seed), Path(root)
    for split, count in (("train", _TRAIN), ("val", _TEST)):
        for label, wnid in enumerate(_WNIDS):
            (root / split / wnid).mkdir(parents=True)
            for number in range(count):
                _picture(rng, size, label).save(root / split / wnid / f"{wnid}_{number}.JPEG", quality=90)
    names = {wnid: (f"fish {label}",) for label, wnid in enumerate(_WNIDS)}
    of_val = [wnid for wnid in _WNIDS for _ in range(_TEST)]
    torch.save((names, of_val), root / "meta.bin")
    return root


def make_tiny_imagenet(root: Path) -> Path:
    """Tiny-ImageNet as it is unpacked, under root, which is returned."""
    rng, root, side = np.random.default_rng(0), Path(root), 64
    (root / "val" / "images").mkdir(parents=True)
    lines = []
    for label, wnid in enumerate(_WNIDS):
        folder = root / "train" / wnid / "images"
        folder.mkdir(parents=True)
        for number in range(_TRAIN):
            _picture(rng, (side, side), label).save(folder / f"{wnid}_{number}.JPEG", quality=90)
        for number in range(_TEST):
            name = f"val_{label * _TEST + number}.JPEG"
            _picture(rng, (side, side), label).save(root / "val" / "images" / name, quality=90)
            lines.append(f"{name}\t{wnid}\t0\t0\t{side - 1}\t{side - 1}\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    return root


def make_cifar(path: Path) -> Path:
    """An .npz file of CIFAR's arrays, which is returned."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", _TRAIN), ("test", _TEST)):
        labels = np.arange(len(_WNIDS)).repeat(count)
        arrays[f"x_{part}"] = np.stack([np.asarray(_picture(rng, (32, 32), label)) for label in labels.tolist()])
        arrays[f"y_{part}"] = labels
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return Path(path)


def make_labelled(path: Path) -> Path:
    """An .npz file of labelled images in its test part, of ImageNet's number of classes, which is returned."""
    rng, count = np.random.default_rng(0), _TRAIN + _TEST
    labels = np.arange(len(_WNIDS)).repeat(count)
    images = np.stack([np.asarray(_picture(rng, (128, 128), label)) for label in labels.tolist()])
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    # A rehearsal has no weights to say mean and std; they are measured on the training part, read for them alone.
    names = np.arange(IMAGENET_CLASSES).astype(str)
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels, classes=names)
    return Path(path)


def make_voc(root: Path, *, train: int = 6, val: int = 3, aug: int = 4, size: Size = SIZE, seed: int = 0) -> Path:
    """`VOCdevkit/VOC2012` under root, which is returned; labels are palette images, those of aug plain ones.

    Images are `size` = (height, width) pixels, every second one 8 pixels lower; outlines are ignored (255).
    """
    base = Path(root) / "VOCdevkit" / "VOC2012"
    folders = {name: base / name for name in ("JPEGImages", "SegmentationClass", "SegmentationClassAug")}
    lists = base / "ImageSets" / "Segmentation"
    for folder in (*folders.values(), lists):
        folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val), ("aug", aug)):
        names = [f"2012_{split}{number:03d}" for number in range(count)]
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for number, name in enumerate(names):
            image, label = scene(rng, (size[0] - 8 * (number % 2), size[1]), VOC_CLASSES, IGNORED)
            Image.fromarray(image).save(folders["JPEGImages"] / f"{name}.jpg", quality=95)
            drawn = Image.fromarray(label)
            if split == "aug":
                drawn.save(folders["SegmentationClassAug"] / f"{name}.png")
            else:
                drawn.putpalette(_colours(256).flatten().tolist())
                drawn.save(folders["SegmentationClass"] / f"{name}.png")
    return base


def make_cityscapes(root: Path, *, train: int = 6, val: int = 3, size: Size = SIZE, seed: int = 0) -> Path:
    """`leftImg8bit` and `gtFine` under root, which is returned; two cities in train, one in val, ids 0 … 18 and 255."""
    rng = np.random.default_rng(seed)
    for split, count, cities in (("train", train, ("aachen", "bochum")), ("val", val, ("lindau",))):
        for number in range(count):
            city = cities[number % len(cities)]
            name = f"{city}_{number:06d}_000019"
            image, label = scene(rng, size, CITYSCAPES_CLASSES, IGNORED)
            for folder, file, pixels in (
                ("leftImg8bit", f"{name}_leftImg8bit.png", image),
                ("gtFine", f"{name}_gtFine_labelTrainIds.png", label),
            ):
                place = Path(root) / folder / split / city
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(place / file)
    return Path(root)


def make_camvid(root: Path, *, train: int = 6, val: int = 3, test: int = 3, size: Size = SIZE, seed: int = 0) -> Path:
    """`images/{train,val,test}/NAME.jpg` and `labels/…/NAME.png` under root, which is returned; id 11 is unlabelled."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val), ("test", test)):
        images, labels = Path(root) / "images" / split, Path(root) / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for number in range(count):
            name = f"0001TP_{split}{number:05d}"
            image, label = scene(rng, size, CAMVID_CLASSES, CAMVID_UNLABELLED)
            Image.fromarray(image).save(images / f"{name}.jpg", quality=95)
            Image.fromarray(label).save(labels / f"{name}.png")
    return Path(root)


def scene(rng: np.random.Generator, size: Size, classes: int, ignored: int) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) and its label (H, W), both uint8: three bands, four shapes with an ignored outline, noise."""
    label = Image.new("L", (size[1], size[0]))
    draw = ImageDraw.Draw(label)
    kinds = np.linspace(0, classes - 1, KINDS).round().astype(int)
    for index, kind in enumerate(rng.choice(kinds, 3).tolist()):
        draw.rectangle((0, index * size[0] // 3, size[1], (index + 1) * size[0] // 3), fill=kind)
    for index, box in enumerate(_boxes(rng, size)):
        shape = (draw.ellipse, draw.rectangle)[index % 2]
        shape(box, fill=int(rng.choice(kinds)), outline=ignored)
    ids = np.asarray(label)
    noise = rng.integers(-12, 13, (*size, 3))
    return np.clip(_colours(256)[ids] + noise, 0, 255).astype(np.uint8), ids


def _boxes(rng: np.random.Generator, size: Size) -> Iterator[tuple[int, int, int, int]]:
    for _ in range(4):
        height, width = (int(rng.integers(side // 4, side // 2)) for side in size)
        top, left = int(rng.integers(0, size[0] - height)), int(rng.integers(0, size[1] - width))
        yield left, top, left + width, top + height


def _colours(count: int) -> np.ndarray:
    return np.random.default_rng(2012).integers(20, 236, (count, 3))


def _picture(rng: np.random.Generator, size: Size, label: int) -> Image.Image:
    """A noisy image in the colour of a class."""
    noise = rng.integers(-30, 31, (*size, 3))
    return Image.fromarray(np.clip(_colours(label + 1)[label] + noise, 0, 255).astype(np.uint8))


MINIATURES: Mapping[str, Callable[[Path], str]] = {
    "cifar10": lambda folder: f"npz:{make_cifar(folder / 'cifar.npz')}",
    "cifar100": lambda folder: f"npz:{make_cifar(folder / 'cifar.npz')}",
    "tiny": lambda folder: f"folder:{make_tiny_imagenet(folder)}",
    "imagenet": lambda folder: f"torchvision:ImageNet@{make_imagenet(folder)}",
    "imagenet_sample": lambda folder: f"npz:{make_labelled(folder / 'labelled.npz')}",
    "voc": lambda folder: str(make_voc(folder, train=3, val=2, aug=3)),
    "cityscapes": lambda folder: str(make_cityscapes(folder, val=2, size=_EIGHTH_CITYSCAPES)),
    "camvid": lambda folder: str(make_camvid(folder, val=2, test=2, size=_FIFTH_CAMVID)),
}
"""Name of a data set -> what writes a miniature into a new folder and says where it is, as `--data` does.

Images for classification have their true sizes, and two classes: 6 to train, 2 to test. Those of `imagenet_sample` are
8 labelled ones of two classes out of 1000. Those for segmentation are an eighth as high and wide
(CamVid's a fifth), with all classes' ids: 6 to train, 2 to test.
"""
