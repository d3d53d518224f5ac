"""Where the images of segmentation are, what to do where they are missing, and digits on canvases as files."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from image2video.data.digit_scenes import load_digit_scenes
from image2video.errors import MissingError
from image2video.reproduce.places import FOLDERS
from image2video.reproduce.segment_reading import read_config
from image2video.reproduce.segment_split import loader_leaves
from image2video.reproduce.spec import Setting

DIGIT_SCENES = "digit_scenes"


def data_root(setting: Setting, specs: Mapping[str, str], folder: Path) -> Path:
    """The folder of a setting's images: where `specs` says, or where it is by default, below the current folder.

    Digit scenes are written into `folder` where `specs` says nothing of them. Raises `MissingError` where a folder or a
    list that the config reads is not there, with the keys of the config and how to get the data; raises what
    `read_config` does.
    """
    config = read_config(setting)
    name = setting.data
    if name == DIGIT_SCENES and name not in specs:
        return digit_scenes(folder)
    if name not in FOLDERS and name not in specs:
        raise MissingError(f"data set {name!r} is not known; give --data {name}=FOLDER")
    default, how = FOLDERS.get(name, ("", "give it by --data"))
    root = Path(specs.get(name, default)).expanduser()
    lacking: dict[str, str] = {}
    for loader in ("train_dataloader", "test_dataloader"):
        for key, leaf in loader_leaves(config, loader):
            paths = {f"data_prefix.{part}": path for part, path in (leaf.get("data_prefix") or {}).items()}
            for part, path in (paths | {"ann_file": leaf.get("ann_file")}).items():
                if path and not (root / path).exists():
                    lacking.setdefault(str(path), f"{key}.{part}={path!r}")
    if lacking:
        what = ", ".join(lacking.values()) if root.is_dir() else f"{', '.join(lacking)}; there is no such folder"
        raise MissingError(
            f"data set {name!r} could not be read from {str(root)!r}, where {setting.config} reads {what}; how to get "
            f"it: {how}; if it is elsewhere: --data {name}=FOLDER"
        )
    return root


def digit_scenes(folder: Path) -> Path:
    """`images/{train,test}/N.png` and `labels/…` of the library's digit scenes below `folder`, written once."""
    root = folder / DIGIT_SCENES
    if root.is_dir():
        return root
    folder.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(prefix=f".{DIGIT_SCENES}-", dir=folder))
    try:
        for split, (images, labels) in zip(("train", "test"), load_digit_scenes(), strict=True):
            for kind, pixels in (("images", images.squeeze(1)), ("labels", labels)):
                place = half / kind / split
                place.mkdir(parents=True)
                for number, one in enumerate(pixels.numpy()):
                    Image.fromarray(one).save(place / f"{number:04d}.png", compress_level=1)
        half.chmod(0o755)
        try:
            os.rename(half, root)  # whole, or not at all
        except OSError:
            if not root.is_dir():  # another process was faster
                raise
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return root
