"""The data sets of the tables by name, and what to do where one is missing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from image2video.data import DataSource, load_data
from image2video.errors import Image2VideoError, InputError, MissingError
from image2video.files import atomic_write_json, read_json
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


def check_names(specs: Mapping[str, str], needed: Iterable[str]) -> None:
    """Raise `InputError` where `specs` says the place of a data set that neither a table needs nor we know."""
    known = sorted({*SOURCES, *needed})
    for name in specs:
        if name not in known:
            raise InputError(f"--data says where {name!r} is, which nothing here reads; known are {', '.join(known)}")


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


class Shelf:
    """The data sets of settings, each loaded once, and the record of which images a folder's results were made with.

    specs: where data sets are, by name; folder: for the records; writes: whether this process writes them.
    """

    def __init__(self, specs: Mapping[str, str], folder: Path, *, writes: bool = True) -> None:
        self.specs = dict(specs)
        self._folder, self._writes = folder, writes
        self._loaded: dict[str, DataSource | MissingError] = {}

    def __call__(self, setting: Setting) -> DataSource:
        """The data of a setting.

        Raises `MissingError` where they are not there, `InputError` where the folder holds results of other images
        under the same name.
        """
        told = [setting.data, setting.image_size, setting.train_images, setting.holdout, setting.seed]
        key = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]
        if key not in self._loaded:
            try:
                data = load(setting, self.specs)
                self._check(setting.data, self._folder / f"{setting.data}-{key}.json", data)
                self._loaded[key] = data
            except MissingError as error:
                self._loaded[key] = error
        found = self._loaded[key]
        if isinstance(found, MissingError):
            raise found
        return found

    def _check(self, name: str, path: Path, data: DataSource) -> None:
        now = {key: value for key, value in data.describe().items() if key != "name"}
        if path.is_file():
            then = read_json(path)
            for key in now:
                if then.get(key) != now[key]:
                    raise InputError(
                        f"{path.parent.parent} holds results of another data set called {name!r} ({key}: "
                        f"{then.get(key)} then, {now[key]} now); write to another folder, or give the data of then"
                    )
        elif self._writes:
            atomic_write_json(path, now)
