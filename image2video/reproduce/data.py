"""The data sets of the tables by name, and what to do where one is missing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from image2video.data import DataSource, load_data
from image2video.errors import Image2VideoError, InputError, MissingError
from image2video.reproduce.places import FOLDERS, SOURCES
from image2video.reproduce.pretrained import PRETRAINED, check_classes, check_pretrained, timm_file
from image2video.reproduce.spec import Setting
from image2video.reproduce.untrained import divided
from image2video.runs.folders import atomic_write_json, read_record


def parse_data(text: str | None) -> dict[str, str]:
    """Where data sets are, as `--data` says it: `cifar10=npz:cifar10.npz,imagenet=folder:…`; none for None.

    Raises `InputError` for an item without a name, or a name twice.
    """
    found: dict[str, str] = {}
    for item in [] if text is None else text.split(","):
        name, equals, spec = item.strip().partition("=")
        if not (name and equals and spec):
            raise InputError(f"--data {item.strip()!r:.80}: needed NAME=SOURCE, such as cifar10=npz:cifar10.npz")
        if name in found:
            raise InputError(f"--data names {name!r:.80} twice; name it once")
        found[name] = spec
    return found


def check_names(specs: Mapping[str, str], needed: Iterable[str]) -> None:
    """Raise `InputError` where `specs` says the place of a data set that neither a table needs nor we know."""
    known = sorted({*SOURCES, *FOLDERS, *needed})
    for name in specs:
        if name not in known:
            raise InputError(f"--data says where {name!r} is, which nothing here reads; known are {', '.join(known)}")


def load(setting: Setting, specs: Mapping[str, str]) -> DataSource:
    """The data of a setting, from where `specs` says or where they are by default.

    Raises `MissingError` for a data set that is not there, or that has other classes than the published network where
    nothing is trained, with how to get it.
    """
    if setting.data not in SOURCES and setting.data not in specs:
        raise MissingError(f"data set {setting.data!r} is not known; give --data {setting.data}=SOURCE")
    default, how = SOURCES.get(setting.data, ("", "give it by --data"))
    spec = specs.get(setting.data, default)
    known = None if setting.weights is None else PRETRAINED[setting.weights]
    mean, std = (None, None) if known is None else (known.mean, known.std)
    try:
        if not setting.trains:
            labelled = load_data(spec, image_size=setting.image_size, mean=mean, std=std, parts=("test",))
            if setting.weights is not None:  # before anything is recorded, so that a mended file is taken later
                check_classes(setting.weights, labelled.num_classes)
            return divided(labelled, setting)
        return load_data(
            spec,
            holdout=setting.holdout,
            seed=setting.seed,
            train_images=setting.train_images,
            image_size=setting.image_size,
            mean=mean,
            std=std,
        )
    except (Image2VideoError, OSError, RuntimeError) as error:
        raise MissingError(
            f"data set {setting.data!r} could not be read from {spec!r} ({error}); how to get it: {how}; if it is "
            f"elsewhere: --data {setting.data}=SOURCE"
        ) from error


class Shelf:
    """The data sets of settings, each loaded once, and the record of which images a folder's results were made with.

    specs: where data sets are, by name; folder: for the records; writes: whether this process writes them; places:
    where trained weights are, by name.
    """

    def __init__(
        self, specs: Mapping[str, str], folder: Path, *, writes: bool = True, places: Mapping[str, str] | None = None
    ) -> None:
        self.specs, self._places = dict(specs), dict(places or {})
        self._folder, self._writes = folder, writes
        self._loaded: dict[str, Any] = {}

    def __call__(self, setting: Setting) -> Any:
        """The data of a setting: a `DataSource`, or the plain mmsegmentation config where the setting has one.

        Raises `MissingError` where they are not there or a config cannot be used, `InputError` where the folder holds
        results of other images under the same name, or of a config that was another.
        """
        told: list[Any] = [setting.data, setting.image_size, setting.train_images, setting.holdout, setting.seed]
        told += [] if setting.weights is None else [setting.weights]
        told += [] if setting.config is None else [setting.config, dict(setting.options)]
        told += [] if setting.trains else ["untrained"]  # the test part is divided then
        key = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]
        if key not in self._loaded:
            if setting.redraw:  # the images of the seed before are of no more use, and may be gigabytes
                self._loaded.clear()
            try:
                self._loaded[key] = self._read(setting, key)
            except MissingError as error:
                self._loaded[key] = error
        found = self._loaded[key]
        if isinstance(found, MissingError):
            raise found
        return found

    def _read(self, setting: Setting, key: str) -> Any:
        if setting.config is not None:
            config, now = _segmentation(setting, self.specs, self._folder)
            if setting.weights is not None:
                backbone = config.model.backbone
                if backbone.get("type") != "TimmFeatures":
                    raise InputError(
                        f"{setting.config}: weights={setting.weights!r} need a backbone of type TimmFeatures, got "
                        f"{backbone.get('type')!r}; leave weights out, and let the config say where its own are"
                    )
                check_pretrained(setting.weights, backbone.model_name)
                backbone.checkpoint_path = str(timm_file(setting.weights, self._places, self._folder))
            self._check(setting.data, self._folder / f"{setting.data}-{key}.json", now)
            return config
        data = load(setting, self.specs)
        now = {key: value for key, value in data.describe().items() if key != "name"}
        self._check(setting.data, self._folder / f"{setting.data}-{key}.json", now)
        return data

    def _check(self, name: str, path: Path, now: Mapping[str, Any]) -> None:
        if path.is_file():
            then = read_record(path)
            for key in now:
                if then.get(key) != now[key]:
                    what = "another content of the config" if key == "config" else f"another data set called {name!r}"
                    raise InputError(
                        f"{path.parent.parent} holds results of {what} ({key}: {then.get(key)} then, {now[key]} now); "
                        "write to another folder, or give what there was then"
                    )
        elif self._writes:
            atomic_write_json(path, dict(now))


def _segmentation(setting: Setting, specs: Mapping[str, str], folder: Path) -> tuple[Any, dict[str, Any]]:
    """The plain config of a setting with its data in place, and what the data are."""
    try:
        from image2video.reproduce.segment_config import plain_config
        from image2video.reproduce.segment_data import data_root
        from image2video.reproduce.segment_reading import content_hash
        from image2video.reproduce.segment_split import describe
    except ImportError as error:
        raise without_mmsegmentation(setting, error) from error
    try:
        config = plain_config(setting, data_root(setting, specs, folder))
    except MissingError:
        raise
    except Image2VideoError as error:
        raise MissingError(f"{setting.config} with the data set {setting.data!r} cannot be used: {error}") from error
    return config, describe(config) | {"config": content_hash(setting)}


def without_mmsegmentation(setting: Setting, error: ImportError) -> MissingError:
    """What to raise where a setting has a config and mmsegmentation cannot be imported."""
    return MissingError(
        f"{setting.config} needs mmsegmentation, which cannot be imported here ({error}): pip install "
        "'.[mmseg]' in a clone of image2video"
    )
