"""`image2video search --task mmseg:CONFIG`: network, images and losses of a mmsegmentation config, for a search."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from image2video.functional import InputError
from image2video.integrations.openmmlab.options import VideoOptions
from image2video.integrations.openmmlab.search_config import (
    build_items,
    class_names,
    crop_size,
    held_out_pipeline,
    read_config,
    same_images,
    train_pipeline,
    type_name,
)
from image2video.integrations.openmmlab.search_data import ConfigImages
from image2video.integrations.openmmlab.search_model import build_segmentor, plain_model, preparation_of
from image2video.integrations.openmmlab.search_network import SegmentorFrames, SegmentorTask
from image2video.integrations.openmmlab.search_reading import Reading, Size
from image2video.search.problems import Problem, Request
from image2video.search.select.selection import get_selection
from image2video.search.state.seeds import derived_seed
from image2video.settings.search import SearchConfig

LABEL_SIZE_BYTES = 32 * 2**20
"""Maps of a batch's frames that take no more than this at the size of the images are brought back at that size."""

WHAT_TELLS = "train the config with video=dict(genotype=…): with the file genotype.json, and with random chains"


def build(path: str, request: Request) -> Problem:
    """The problem that the mmsegmentation config at `path` describes; see `build_from`.

    Raises `MissingError` where there is no config, `InputError` where it cannot be read, and what `build_from` raises.
    """
    return build_from(read_config(path), Path(path).stem, request)


def build_from(config: Config, name: str, request: Request) -> Problem:
    """The problem that a mmsegmentation config describes; `name` is that of the data, for records.

    The plain segmentor of the config (a video segmentor's plain twin) with its losses; its training images, read by its
    own pipeline; held-out images, a part of the training images by default, read by its test pipeline, fitted into
    `request.size` or the size of the training crops and padded. The test set is never read. SyncBN is BN in one
    process.

    Raises:
        InputError: a config without a size of its images; weights that do not fit; data that cannot be built;
            `held_out="val"` where that is the test set.
        MissingError: a path in the config that does not exist.
        UnsupportedError: a segmentor, head or data preprocessor that the search does not know, by name.

    """
    model, video = plain_model(config)
    segmentor = build_segmentor(model, config.get("data_preprocessor"), request)
    full_size = _full_size(segmentor, video, crop_size(config), request.config)
    network = SegmentorFrames(segmentor, full_size=full_size)
    task = SegmentorTask(network, None if video is None else video.sites)
    size = request.size or crop_size(config)
    train, own = _images(config, "train_dataloader", size, segmentor, task, request.workers)
    if request.train_images is not None:
        train = train.take(request.train_images, seed=derived_seed(request.config.seed, "train images"))
    holdout, told = _held_out(config, train, size, segmentor, task, request)
    preparation = preparation_of(segmentor, task, size)
    notes = [_size_note(size, full_size), *told, *_video_notes(video, request.config)]
    return Problem(
        short_name=f"mmseg:{name}",
        model=f"{type(segmentor.backbone).__name__}, {type(network.decode_heads[-1]).__name__}",
        network=network,
        train=train,
        holdout=holdout,
        task=task,
        classes=class_names(own, task.num_classes),
        input_size=(len(preparation.mean), *size),
        mean=tuple(value / 255 for value in preparation.mean),
        std=tuple(value / 255 for value in preparation.std),
        what_tells=WHAT_TELLS,
        settings=_settings(config, model, size, full_size),
        notes=tuple(notes),
    )


def _images(
    config: Config, loader: str, size: Size, segmentor: Any, task: SegmentorTask, workers: int | None
) -> tuple[ConfigImages, Any]:
    """The images of a data loader of the config, by the training pipeline and by the held-out one; its data set."""
    key, found = f"{loader}.dataset", config[loader]["dataset"]
    pipeline = None if loader == "train_dataloader" else train_pipeline(config)
    augmented = build_items(found, key, pipeline)
    plain = build_items(found, key, held_out_pipeline(config, size))
    readings = (
        Reading(augmented, preparation_of(segmentor, task, None)),
        Reading(plain, preparation_of(segmentor, task, size)),
    )
    processes = min(8, (os.cpu_count() or 1) - 1) if workers is None else workers
    return ConfigImages(*readings, processes), augmented


def _held_out(
    config: Config, train: ConfigImages, size: Size, segmentor: Any, task: SegmentorTask, request: Request
) -> tuple[ConfigImages | None, list[str]]:
    """Held-out images of their own where they are asked for, and what to say of them."""
    if request.held_out == "val":
        if not config.get("val_dataloader"):
            raise InputError("--task-validation val: the config has no val_dataloader")
        if same_images(config.get("val_dataloader"), config.get("test_dataloader")):
            raise InputError(
                "--task-validation val: val_dataloader reads the same files as test_dataloader, and a search must not "
                "see the test set; leave it at train, or give the config another val_dataloader"
            )
        found, _ = _images(config, "val_dataloader", size, segmentor, task, request.workers)
        return found, [f"held-out images: the {found.num_images} of val_dataloader"]
    if not get_selection(request.config.selection).needs_trained:
        return None, []
    part, _ = train.split(request.holdout, seed=derived_seed(request.config.seed, "holdout"))
    return part, [
        f"chains are ranked on {part.num_images} images of train_dataloader: weights that were trained on them flatter "
        "the ranking; --task-validation val takes those of val_dataloader"
    ]


def _full_size(segmentor: Any, video: VideoOptions | None, size: Size, config: SearchConfig) -> bool:
    """Whether maps are brought back at the size of the images: as the config's `video` says, else where they fit."""
    if video is not None:
        return video.unwarp == "label"
    maps = config.T * config.batch_size * segmentor.out_channels * size[0] * size[1]
    return 4 * maps <= LABEL_SIZE_BYTES


def _size_note(size: Size, full_size: bool) -> str:
    """How large held-out images and averaged maps are."""
    where = "of the images" if full_size else "that the heads give"
    return f"held-out images: {size[1]}×{size[0]} pixels, padded; maps are brought back at the size {where}"


def _video_notes(video: VideoOptions | None, config: SearchConfig) -> Iterator[str]:
    """Say where the config's `video` differs from the options of the search, which count."""
    if video is None:
        return
    changed = []
    for name in ("T", "fusion", "residual", "padding", "interpolation"):
        here, there = getattr(config, name), getattr(video, name)
        if here != there:
            changed.append(f"{name}: {here!r} here, {there!r} there")
    if changed:
        yield f"the config's model.video has other values than the options of the search ({'; '.join(changed)})"


def _settings(config: Config, model: Any, size: Size, full_size: bool) -> dict[str, Any]:
    """What decides the result beside the options, without paths."""
    return {
        "model": _plain(model),
        "train_pipeline": _plain(train_pipeline(config)),
        "held_out_size": list(size),
        "full_size": full_size,
    }


def _plain(value: Any) -> Any:
    """Config values as JSON holds them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else type_name(value)
