"""`image2video export`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from torch import Tensor

from image2video.cli.arguments import collect
from image2video.cli.commands.export import ExportOptions
from image2video.cli.export_sizes import NO_DATA, without_images
from image2video.cli.follow import follow_run, say
from image2video.cli.images import load_matching_data
from image2video.cli.models import build_model, check_classes
from image2video.cli.options import BackboneOptions, DataOptions, MachineOptions, WrapOptions
from image2video.data import DataSource
from image2video.errors import InputError, MissingError
from image2video.export import ExportConfig, export_model
from image2video.export.config import COMPARED
from image2video.export.driver import check_target
from image2video.protocols import ImageSet


def run(options: Namespace) -> None:
    """Writes the file and its check files, and prints the largest difference."""
    options, origin, notes = follow_run(options)
    how = collect(ExportOptions, options)
    config = collect(ExportConfig, options)
    backbone, machine = collect(BackboneOptions, options), collect(MachineOptions, options)
    if backbone.weights is None and not backbone.pretrained:
        raise InputError("without RUN or --pretrained the network is random; say which weights to export")
    if backbone.weights is not None and not Path(backbone.weights).expanduser().exists():
        raise MissingError(f"no run, folder or file of weights at {backbone.weights}; give one that is there")
    if how.calibration_images < 1:
        raise InputError(f"--calibration-images must be at least 1, got {how.calibration_images}")
    kind = config.kind
    kind.check_installed()
    out = Path(f"image2video-export{kind.suffix}" if how.out is None else how.out)
    check_target(out, config, how.overwrite)
    data_options = collect(DataOptions, options)
    say("export", notes)
    if data_options.data == NO_DATA:
        if kind.calibrated:
            raise InputError(f"--format {config.format} needs images from which it takes ranges; give --data")
        data, line = without_images(data_options, backbone, origin)
        images = _random(data, machine.seed)
    else:
        parts = ("train", "test") if kind.calibrated else ("test",)
        try:
            data, line = load_matching_data(data_options, backbone, machine.seed, run=origin, parts=parts, subset=True)
        except MissingError as error:
            raise MissingError(f"{error}; or give --data none to compare on random images") from error
        images = _first(data.test, max(COMPARED))
    model, changes = build_model(backbone, collect(WrapOptions, options), data, machine.seed, evaluated=True)
    check_classes(model, data)
    say("export", [line, *changes])
    report = export_model(
        model.eval(),
        out,
        config,
        images=images,
        calibration=_first(data.train, how.calibration_images) if kind.calibrated else None,
        about=_about(data),
        overwrite=how.overwrite,
    )
    shapes = ", ".join(f"{output['name']} {_shape(output['shape'])}" for output in report.record["outputs"])
    print(f"{report.format}: images {_shape(report.record['input']['shape'])} → {shapes}, float32")
    print(report.sentence())
    print(
        f"{report.path} ({report.path.stat().st_size / 2**20:.1f} MiB), {report.path.name}.check.safetensors and .json"
    )


def _about(data: DataSource) -> dict[str, Any]:
    """What a server must know of the images and the classes."""
    found: dict[str, Any] = {"mean": list(data.mean), "std": list(data.std), "classes": list(data.classes)}
    found["compared_on"] = "random images" if data.name == NO_DATA else f"{data.short_name}, test images"
    if data.resizing is not None:
        found["resizing"] = data.resizing.to_dict()
    return found


def _random(data: DataSource, seed: int) -> Tensor:
    """Random normalised images."""
    return torch.randn(max(COMPARED), *data.input_size, generator=torch.Generator().manual_seed(seed))


def _first(images: ImageSet, count: int) -> Tensor:
    """The first images of a set, as the network takes them."""
    return torch.cat([*itertools.islice(_batches(images, count), -(-count // _READ))])[:count]


_READ = 16
"""Images that are read at once."""


def _batches(images: ImageSet, count: int) -> Iterator[Tensor]:
    for batch, _ in images.batches(min(_READ, count)).epoch(0):
        yield batch


def _shape(sizes: list[Any]) -> str:
    """A shape for people."""
    return f"({', '.join(map(str, sizes))})"
