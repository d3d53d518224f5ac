"""The data sets of the tables by name, and what to do where one is missing."""

from __future__ import annotations

from collections.abc import Mapping

from image2video.data import DataSource, load_data
from image2video.errors import Image2VideoError, InputError, MissingError
from image2video.reproduce.spec import Setting

SOURCES = {
    "digits": ("digits", "comes with scikit-learn"),
    "digit_scenes": ("digit_scenes", "comes with scikit-learn"),
    "cifar10": ("torchvision:CIFAR10@data", "torchvision.datasets.CIFAR10('data', download=True)"),
    "cifar100": ("torchvision:CIFAR100@data", "torchvision.datasets.CIFAR100('data', download=True)"),
    "tiny": ("folder:data/tiny-imagenet-200", "http://cs231n.stanford.edu/tiny-imagenet-200.zip, unpacked"),
    "imagenet": ("torchvision:ImageNet@data/imagenet", "https://image-net.org/download.php (an account is needed)"),
}
"""Name -> where it is by default, and how to get it."""


def parse_data(text: str | None) -> dict[str, str]:
    """Where data sets are, as `--data` says it: `cifar10=npz:cifar10.npz,imagenet=folder:…`; none for None.

    Raises `InputError` for an item without a name, or a name twice.
    """
    found: dict[str, str] = {}
    for item in [] if text is None else text.split(","):
        name, equals, spec = item.strip().partition("=")
        if not (name and equals and spec):
            raise InputError(f"--data {item.strip()!r}: needed NAME=SOURCE, such as cifar10=npz:cifar10.npz")
        if name in found:
            raise InputError(f"--data names {name!r} twice")
        found[name] = spec
    return found


def load(setting: Setting, specs: Mapping[str, str]) -> DataSource:
    """The data of a setting, from where `specs` says or where they are by default.

    Raises `MissingError` for a data set that is not there, with how to get it.
    """
    if setting.data not in SOURCES and setting.data not in specs:
        raise MissingError(f"data set {setting.data!r} is not known; give --data {setting.data}=SOURCE")
    default, how = SOURCES.get(setting.data, ("", "give it by --data"))
    spec = specs.get(setting.data, default)
    options = {"train_images": setting.train_images, "image_size": setting.image_size}
    try:
        return load_data(spec, holdout=setting.holdout, seed=setting.seed, **options)
    except (Image2VideoError, OSError, RuntimeError) as error:
        raise MissingError(
            f"data set {setting.data!r} could not be read from {spec!r} ({error}). How to get it: {how}; if it is "
            f"elsewhere: --data {setting.data}=SOURCE"
        ) from error
