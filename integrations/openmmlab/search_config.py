"""What a search takes from a mmsegmentation config: its data sets and the two ways to read them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS
from mmseg.utils import register_all_modules

from image2video.functional import Image2VideoError, InputError, MissingError, UnsupportedError
from image2video.integrations.openmmlab.search_reading import FitInside, Size

_DECIDES_FILES = ("data_root", "data_prefix", "ann_file", "type", "indices")


def read_config(path: str, needs: Sequence[str] = ("model", "train_dataloader"), asks: str = "a search") -> Config:
    """The config at `path`; raises `MissingError` where there is none, `InputError` where it cannot be read.

    `needs` are the parts that it must have, and `asks` says what needs them.
    """
    if not Path(path).expanduser().is_file():
        raise MissingError(f"{path}: no config there; give the path of a mmsegmentation config")
    try:
        with DefaultScope.overwrite_default_scope("mmseg"):
            register_all_modules(init_default_scope=False)
            config = Config.fromfile(str(Path(path).expanduser()))
    except Exception as error:
        raise InputError(f"{path} cannot be read as a config: {type(error).__name__}: {error}") from error
    for key in needs:
        if not isinstance(config.get(key), Mapping):
            raise InputError(f"{path} has no {key}; {asks} needs {' and '.join(needs)}")
    if "train_dataloader" in needs and not isinstance(config.train_dataloader.get("dataset"), Mapping):
        raise InputError(f"{path} has no train_dataloader.dataset; {asks} needs one")
    return config


def build_items(config: Mapping[str, Any], key: str, pipeline: list[Any] | None) -> Any:
    """A data set of a config (`train_dataloader.dataset`), repeated ones once, with `pipeline` in place of its own.

    Raises `MissingError` for a path that does not exist, `InputError` for a data set that cannot be built or is empty,
    with the key of the config; `UnsupportedError` for data sets that mix images.
    """
    chosen = _with_pipeline(config, key, pipeline)
    for where, part in _leaves(chosen, key):
        _check_paths(part, where)
    try:
        with DefaultScope.overwrite_default_scope("mmseg"):
            items = DATASETS.build(chosen)
    except Image2VideoError:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise InputError(f"{key} ({type_name(config.get('type'))}) cannot be built: {what}") from error
    if len(items) == 0:
        raise InputError(f"{key} ({type_name(config.get('type'))}) holds no image; check data_prefix and img_suffix")
    return items


def held_out_pipeline(config: Config, size: Size) -> list[Any]:
    """The config's test pipeline with labels loaded beside the image, and both fitted into `size` = (height, width).

    Raises `InputError` where the config has none.
    """
    reads: list[Any] = []
    loads: list[Any] = []
    others: list[Any] = []
    for step in test_pipeline(config):
        kind = type_name(step.get("type"))
        if kind == "LoadAnnotations":
            loads.append(step)
        elif kind.startswith(("Resize", "LoadAnnotations")):
            continue
        elif "Load" in kind:
            # Labels are loaded after the last step that loads something, and after all that stands before it.
            reads += [*others, step]
            others = []
        else:
            others.append(step)
    return [*reads, *(loads or [{"type": "LoadAnnotations"}]), FitInside(size), *others]


def train_pipeline(config: Config) -> list[Any]:
    """The pipeline of the config's training images; raises `InputError` where there is none."""
    _, part = next(_leaves(config.train_dataloader.dataset, "train_dataloader.dataset"))
    if not part.get("pipeline"):
        raise InputError("train_dataloader.dataset has no pipeline; a search needs one")
    return list(part["pipeline"])


def test_pipeline(config: Config) -> list[Any]:
    """The pipeline of validation or else of test images."""
    for key in ("val_dataloader", "test_dataloader"):
        loader = config.get(key)
        if isinstance(loader, Mapping) and isinstance(loader.get("dataset"), Mapping):
            _, part = next(_leaves(loader["dataset"], key))
            if part.get("pipeline"):
                return list(part["pipeline"])
    if not config.get("test_pipeline"):
        raise InputError(
            "the config has no val_dataloader, test_dataloader or test_pipeline; a search needs one of them to read "
            "held-out images"
        )
    return list(config["test_pipeline"])


def crop_size(config: Config) -> Size:
    """(height, width) of training images: the data preprocessor's size, or that of the pipeline's last crop.

    Raises `InputError` where neither says it.
    """
    size = (config.model.get("data_preprocessor") or config.get("data_preprocessor") or {}).get("size")
    if size is None:
        for _, part in _leaves(config.train_dataloader.dataset, "train_dataloader.dataset"):
            for step in part.get("pipeline") or []:
                size = step.get("crop_size", size)
    if size is None:
        raise InputError(
            "the config does not say how large training images are: set model.data_preprocessor.size to (height, "
            "width), or give --task-size"
        )
    height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    return height, width


def same_images(first: Mapping[str, Any] | None, second: Mapping[str, Any] | None) -> bool:
    """Whether two data loaders of a config read the same files."""
    files = _files(first)
    return bool(files) and files == _files(second)


def _files(loader: Any) -> list[dict[str, Any]]:
    """What decides the files that a data loader reads; nothing where it is no loader of a data set."""
    dataset = loader.get("dataset") if isinstance(loader, Mapping) else None
    if not isinstance(dataset, Mapping):
        return []
    found = []
    for _, part in _leaves(dataset, ""):
        found.append({name: part.get(name) for name in _DECIDES_FILES})
    return found


def class_names(items: Any, count: int) -> tuple[str, ...]:
    """The names of the classes of a data set, or their numbers; refuses one with another number of classes."""
    names = tuple(items.metainfo.get("classes") or ())
    if names and len(names) != count:
        raise InputError(
            f"model.decode_head.num_classes={count}, but the data set has {len(names)} classes ({', '.join(names[:4])}"
            "…); set num_classes to that"
        )
    return names or tuple(str(number) for number in range(count))


def type_name(kind: Any) -> str:
    """The name of a class without its scope; configs give `mmseg.EncoderDecoder`, or the class itself."""
    name = getattr(kind, "__name__", kind)
    return str(name).rpartition(".")[2]


def _with_pipeline(config: Mapping[str, Any], key: str, pipeline: list[Any] | None) -> dict[str, Any]:
    """A copy of a data set's config, repeated ones once, with `pipeline` in place of its own."""
    kind = type_name(config.get("type"))
    if kind == "RepeatDataset":  # else an image could lie in both parts of a split
        return _with_pipeline(config["dataset"], f"{key}.dataset", pipeline)
    if kind == "ConcatDataset":
        parts = [_with_pipeline(p, f"{key}.datasets[{i}]", pipeline) for i, p in enumerate(config["datasets"])]
        return {**config, "datasets": parts}
    if "dataset" in config or "datasets" in config:
        raise UnsupportedError(f"{key}.type={kind!r}: a search splits and reads single images; give its inner data set")
    chosen = {name: copy.deepcopy(value) for name, value in config.items()}
    return chosen if pipeline is None else {**chosen, "pipeline": copy.deepcopy(pipeline)}


def _leaves(config: Mapping[str, Any], key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The data sets inside wrappers, with their keys."""
    if "datasets" in config:
        for i, part in enumerate(config["datasets"]):
            yield from _leaves(part, f"{key}.datasets[{i}]")
    elif "dataset" in config:
        yield from _leaves(config["dataset"], f"{key}.dataset")
    else:
        yield key, config


def _check_paths(part: Mapping[str, Any], key: str) -> None:
    """Raise `MissingError` for a local path that does not exist."""
    if part.get("backend_args"):  # the files are elsewhere
        return
    root = part.get("data_root")
    paths = {f"data_prefix.{name}": value for name, value in (part.get("data_prefix") or {}).items()}
    paths["ann_file"] = part.get("ann_file")
    for name, value in paths.items():
        path = Path(root or "") / (value or "")
        if value and not path.exists():
            raise MissingError(
                f"{key}.{name}={value!r} with data_root={root!r}: {path} does not exist; set {key}.data_root"
            )
