"""`image2video rf`."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from image2video.cli.arguments import add_options as add_fields
from image2video.cli.arguments import collect
from image2video.cli.options import MachineOptions
from image2video.cli.progress import progress_bars
from image2video.cli.rf_job import BARE, Networks, Pictures, build_networks, read_images
from image2video.cli.rf_theory import clip_figure, clip_sentence, expected_rows, layer_sentence
from image2video.clip.genotype import DEFAULT_GENOTYPE
from image2video.clip.image_to_video import Image2Video
from image2video.errors import InputError
from image2video.experiments.output import environment
from image2video.receptive_field import Unit
from image2video.receptive_field.survey import Survey, survey, survey_units
from image2video.report import (
    ErfGrid,
    FieldReport,
    erf_caption,
    erf_figure,
    field_tables,
    film_figure,
    save_figure,
    write_field_page,
)
from image2video.runs.folders import OutputDirectory, atomic_write_bytes, atomic_write_json
from image2video.training import make_accelerator

SCHEMA_VERSION = 1
EXAMPLE = (
    'image2video rf --model resnet50 --genotype "translate_x(0.06) > rotate(10)" --fusion gsf --size 224 '
    "--images random --out runs/rf"
)


@dataclass(frozen=True)
class RfOptions:
    """Which network's fields are measured, and on which images.

    Attributes:
        model: timm model, such as resnet50; another builder's model as BUILDER:NAME
        model_kwargs: further arguments of the model as JSON, such as {"num_classes": 10}
        weights: trained weights: .safetensors or a torch file of the bare network, or a folder of save_pretrained;
            none for random ones
        pretrained: load timm's weights for this model
        genotype: text such as "translate_x(0.06) > rotate(10)", a .json file or preset:NAME
        fusion: how frames mix; a name from `fusion_names()`
        frames: frames of the clip, T
        schedule: power of each frame: from_zero, ramp, centred or mirror
        size: pixels per side of the images (default: the model's own)
        images: a folder of image files, or random for noise
        count: how many images
        batch_size: images per forward pass
        layer: module whose features are a frame's (default: the last that is a map or has tokens)
        frame: of which frame features are shown
        out: folder of the results
        overwrite: replace the run in this folder

    """

    model: str = "resnet50"
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    weights: str = "none"
    pretrained: bool = False
    genotype: str = DEFAULT_GENOTYPE
    fusion: str = "gsf"
    frames: int = 5
    schedule: str = "from_zero"
    size: int | None = None
    images: str = "random"
    count: int = 16
    batch_size: int = 4
    layer: str | None = None
    frame: int = 0
    out: str = "image2video-rf"
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name, least in (("frames", 1), ("count", 1), ("batch_size", 1), ("frame", 0)):
            if getattr(self, name) < least:
                raise InputError(f"--{name.replace('_', '-')} must be at least {least}; received {getattr(self, name)}")
        if self.size is not None and self.size < 1:
            raise InputError(f"--size must be at least 1; received {self.size}")
        if self.frame >= self.frames:
            raise InputError(f"--frame {self.frame} is not one of --frames {self.frames}: they count from 0")
        if self.pretrained and self.weights != "none":
            raise InputError("--pretrained and --weights both name weights; give one of the two")


def add_options(parser: ArgumentParser) -> None:
    """The command's options."""
    add_fields(parser, RfOptions)
    add_fields(parser, MachineOptions)


def run(options: Namespace) -> None:
    """Measures the fields, prints the table, and writes `rf.html`, `rf.json`, the maps and the figures."""
    rf, machine = collect(RfOptions, options), collect(MachineOptions, options)
    began = time.perf_counter()
    device = make_accelerator(machine.device).device
    networks = build_networks(rf, machine.seed, device)
    pictures = read_images(rf.images, rf.count, networks.size, networks.bare, machine.seed)
    units = survey_units(networks.bare, networks.size, layer=rf.layer, frame=rf.frame)
    folder = OutputDirectory(rf.out, "rf", overwrite=rf.overwrite)
    if networks.weights == "random":
        networks = networks.calibrated(pictures.images, machine.seed)
    how: dict[str, Any] = {"weights": networks.weights, "batch_size": rf.batch_size, "seed": machine.seed}
    with progress_bars() as progress:
        fields = survey(networks.models, pictures.images, units, progress=progress, **how)
    measured = [list(row.values())[-1] for row in fields.values()]  # the wrapped networks' units name their frame
    clip = f"{networks.genotype}, T = {networks.frames}, {networks.schedule}"
    caption = erf_caption(measured, model=networks.name, images=pictures.about, clip=clip)
    facts = {
        "model": networks.name,
        "clip": clip,
        "images": f"{rf.count} {pictures.about}",
        "weights": networks.weights,
    }
    facts |= {"seed": machine.seed} | environment(device)
    record = _record(networks, fields, facts, time.perf_counter() - began)
    _write(folder, record, networks, units, fields, ErfGrid.of(fields, caption), pictures)
    _print(folder, ErfGrid.of(fields, caption))


def _record(networks: Networks, fields: Survey, facts: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The JSON object of `rf.json`."""
    rows = [
        {"row": row, "network": name, **field.record()} for row, line in fields.items() for name, field in line.items()
    ]
    return {
        "kind": "receptive_field",
        "schema_version": SCHEMA_VERSION,
        "title": f"Receptive fields of {networks.name}",
        "genotype": str(networks.genotype),
        "T": networks.frames,
        "schedule": networks.schedule,
        "fields": rows,
        "settings": facts,
        "seconds": seconds,
    }


def _write(
    folder: OutputDirectory,
    record: dict[str, Any],
    networks: Networks,
    units: dict[str, Unit],
    fields: Survey,
    grid: ErfGrid,
    pictures: Pictures,
) -> None:
    """The files of the folder; maps are arrays `UNIT/NETWORK` of `maps.npz`."""
    atomic_write_json(folder / "rf.json", record)
    buffer = io.BytesIO()
    maps: dict[str, Any] = {f"{row}/{panel.name}": panel.map for row, line in grid.rows.items() for panel in line}
    np.savez_compressed(buffer, **maps)
    atomic_write_bytes(folder / "maps.npz", buffer.getvalue())
    first = next(iter(fields.values()))[BARE]
    drawn = clip_figure(networks, first)
    for name, figure in (("erf", erf_figure(grid.rows, caption=grid.caption)), ("fields", drawn)):
        for suffix in (".png", ".svg"):
            folder / f"{name}{suffix}"
        save_figure(figure, folder.path / name)
    report = FieldReport(
        title=record["title"],
        grid=grid,
        theory=f"{layer_sentence(networks, units)} {clip_sentence(networks, first)}",
        expected=expected_rows(networks, units, fields),
        facts=record["settings"] | {"time": f"{record['seconds']:.0f} s"},
    )
    write_field_page(folder / "rf.html", report, fields=drawn, film=_film(networks, pictures))
    folder.finish(seconds=record["seconds"])


def _film(networks: Networks, pictures: Pictures) -> Any:
    """The clip of the first image, where it is a picture."""
    if pictures.mean is None:
        return None
    options: dict[str, Any] = {"mean": pictures.mean, "std": pictures.std}
    clip = Image2Video(networks.genotype, T=networks.frames, schedule=networks.schedule, **options)
    return film_figure(pictures.images[:1], clip, **options)


def _print(folder: OutputDirectory, grid: ErfGrid) -> None:
    console = Console()
    for table in field_tables(grid):
        console.print(table)
    for sentence in grid.sentences():
        console.print(sentence, highlight=False)
    console.print(grid.caption, style="dim", highlight=False)
    console.print(f"report: {(folder.path / 'rf.html').resolve()}", soft_wrap=True, highlight=False)
