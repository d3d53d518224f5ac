"""What is known of a network's images and classes where no data are read."""

from __future__ import annotations

from pathlib import Path

from image2video.cli.commands.export import NO_DATA
from image2video.cli.images import bare_builder, preparation_of
from image2video.cli.options import BackboneOptions, DataOptions
from image2video.data import DataSource
from image2video.data.absent import AbsentSet
from image2video.data.preparation import Preparation
from image2video.errors import InputError
from image2video.runs.origin import run_behind
from image2video.training import read_weights
from image2video.training.head import head_classes, head_names
from image2video.training.trained import TrainedRun
from image2video.wrap.pretrained_config import read_config
from image2video.wrap.video_wrap import VideoWrap


def without_images(data: DataOptions, backbone: BackboneOptions, run: TrainedRun | None) -> tuple[DataSource, str]:
    """A data set without images, of the size, the colours and the classes that the weights are known to have.

    Raises `InputError` where the size of the images or the number of classes is not known, with the option to give.
    """
    known = preparation_of(backbone)
    size = _size(data, backbone, known)
    mean = data.mean or (None if known is None else known.mean)
    std = data.std or (None if known is None else known.std)
    channels = backbone.model_kwargs.get("in_chans") or (None if run is None else run.channels)
    if channels is None:
        channels = 3 if mean is None else len(mean)
    plain = mean is None or std is None
    classes = run.classes if run is not None and run.classes is not None else _numbered(backbone)
    absent = AbsentSet("train", NO_DATA)
    source = DataSource(
        NO_DATA,
        absent,
        None,
        AbsentSet("test", NO_DATA),
        classes,
        (int(channels), *size),
        (0.0,) * int(channels) if plain or mean is None else tuple(mean),
        (1.0,) * int(channels) if plain or std is None else tuple(std),
    )
    origin = "" if known is None else f", as {known.origin} says"
    return source, f"images: random, {source.input_size}{origin}"


def _size(data: DataOptions, backbone: BackboneOptions, known: Preparation | None) -> tuple[int, int]:
    """Height and width: as asked, else of the run or of the saved model, else as published."""
    if data.image_size is not None:
        return data.image_size, data.image_size
    weights, recorded = backbone.weights, None
    found = None if weights is None else run_behind(weights)
    if found is not None:
        recorded = (found[1].get("dataset") or {}).get("input_size")
    elif weights is not None and (Path(weights) / "config.json").is_file():
        recorded = read_config(Path(weights) / "config.json")["input_size"]
    if isinstance(recorded, list) and len(recorded) == 3 and all(isinstance(n, int) and n > 0 for n in recorded):
        return recorded[1], recorded[2]
    if known is None or known.image_size is None:
        raise InputError("the size of the network's images is not known; give --image-size N, or --data")
    return known.image_size, known.image_size


def _numbered(backbone: BackboneOptions) -> tuple[str, ...]:
    """The classes of weights of no known run, which are numbers."""
    count = _count(backbone)
    if count is None:
        raise InputError(
            f"{backbone.weights or backbone.model} does not say how many classes it has; give --data of its classes"
        )
    return tuple(str(number) for number in range(count))


def _count(backbone: BackboneOptions) -> int | None:
    """How many classes weights tell apart."""
    if backbone.weights is not None and Path(backbone.weights).is_dir():
        model = VideoWrap.from_pretrained(backbone.weights)
        return int(model.num_classes) if isinstance(getattr(model, "num_classes", None), int) else None
    bare = bare_builder(backbone, {}).build()
    if backbone.weights is None:
        config = getattr(bare, "pretrained_cfg", None) or {}
        return config.get("num_classes")
    state = {name.removeprefix("backbone."): value for name, value in read_weights(backbone.weights).items()}
    return head_classes(head_names(bare), state)
