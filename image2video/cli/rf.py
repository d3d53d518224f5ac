"""`image2video rf`."""

from __future__ import annotations

import io
import time
from typing import Any

import numpy as np
from jsonargparse import Namespace
from rich.console import Console

from image2video.cli.arguments import collect
from image2video.cli.follow import say
from image2video.cli.options import MachineOptions
from image2video.cli.progress import progress_bars
from image2video.cli.rf_job import (
    BARE,
    Networks,
    Pictures,
    RfOptions,
    build_networks,
    follow_weights,
    read_images,
)
from image2video.cli.rf_theory import clip_figure, clip_sentence, expected_rows, layer_sentence
from image2video.clip.deep_clip import DeepClip
from image2video.clip.image_to_video import Image2Video
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


def run(options: Namespace) -> None:
    """Measures the fields, prints the table, and writes `rf.html`, `rf.json`, the maps and the figures."""
    options, run_of_weights, notes = follow_weights(options)
    rf, machine = collect(RfOptions, options), collect(MachineOptions, options)
    began = time.perf_counter()
    device = make_accelerator(machine.device).device
    networks = build_networks(rf, machine.seed, device, run=run_of_weights)
    pictures = read_images(rf.images, rf.count, networks.size, networks.bare, machine.seed, weights=rf.weights)
    say("rf", [*notes, *filter(None, [pictures.prepared])])
    frame = networks.still_frame if rf.frame is None else rf.frame
    seen = networks.wrapped if networks.moves_inside else networks.bare
    units = survey_units(seen, networks.size, layer=rf.layer, frame=frame)
    with OutputDirectory(rf.out, "rf", overwrite=rf.overwrite) as folder:
        if networks.weights == "random":
            networks = networks.calibrated(pictures.images, machine.seed)
        how: dict[str, Any] = {"weights": networks.weights, "batch_size": rf.batch_size, "seed": machine.seed}
        with progress_bars() as progress:
            fields = survey(networks.models, pictures.images, units, progress=progress, **how)
        measured = [list(row.values())[-1] for row in fields.values()]  # the wrapped networks' units name their frame
        caption = erf_caption(measured, model=networks.name, images=pictures.about, clip=networks.clip_text)
        facts = {
            "model": networks.name,
            "clip": networks.clip_text,
            "images": f"{rf.count} {pictures.about}",
            "weights": networks.weights,
        }
        facts |= {"seed": machine.seed} | environment(device)
        record = _record(networks, fields, facts, time.perf_counter() - began)
        grid = ErfGrid.of(fields, caption)
        _write(folder, record, networks, units, fields, grid, pictures)
        _print(folder, grid)


def _record(networks: Networks, fields: Survey, facts: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The JSON object of `rf.json`."""
    rows = []
    for row, line in fields.items():
        rows += [{"row": row, "network": name, **field.record()} for name, field in line.items()]
    return {
        "kind": "receptive_field",
        "schema_version": SCHEMA_VERSION,
        "title": f"Receptive fields of {networks.name}",
        "genotype": str(networks.genotype),
        "T": networks.clip.T,
        "schedule": networks.clip.schedule,
        "clip_at": networks.clip_at,
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
    maps: dict[str, Any] = {}
    for row, line in grid.rows.items():
        maps |= {f"{row}/{panel.name}": panel.map for panel in line}
    np.savez_compressed(buffer, **maps)
    atomic_write_bytes(folder / "maps.npz", buffer.getvalue())
    first = next(iter(fields.values()))[BARE]
    # A square that every frame of the image shows elsewhere is no picture of maps that move inside of the network.
    drawn = None if networks.moves_inside else clip_figure(networks, first)
    figures = {"erf": erf_figure(grid.rows, caption=grid.caption), "fields": drawn}
    for name, figure in figures.items():
        if figure is None:
            continue
        for suffix in (".png", ".svg"):
            _ = folder / f"{name}{suffix}"  # notes the file as one of the folder's own
        save_figure(figure, folder.path / name)
    report = FieldReport(
        title=record["title"],
        grid=grid,
        theory=f"{layer_sentence(networks, units)} {clip_sentence(networks, units, first)}",
        expected=() if networks.moves_inside else expected_rows(networks, units, fields),
        facts=record["settings"] | {"time": f"{record['seconds']:.0f} s"},
    )
    write_field_page(folder / "rf.html", report, fields=drawn, film=_film(networks, pictures))
    folder.finish(seconds=record["seconds"])


def _film(networks: Networks, pictures: Pictures) -> Any:
    """The clip of the first image, where it is a picture and the frames are those of the image."""
    if pictures.mean is None or networks.moves_inside:
        return None
    assert not isinstance(networks.genotype, DeepClip), "it moves maps"
    options: dict[str, Any] = {"mean": pictures.mean, "std": pictures.std}
    clip = Image2Video(networks.genotype, **networks.clip.replace(**options).arguments())
    return film_figure(pictures.images[:1], clip, **options)


def _print(folder: OutputDirectory, grid: ErfGrid) -> None:
    """The table of every unit, what it says, and where the report is."""
    console = Console()
    for table in field_tables(grid):
        console.print(table)
    for sentence in grid.sentences():
        console.print(sentence, highlight=False)
    console.print(grid.caption, style="dim", highlight=False)
    console.print(f"report: {(folder.path / 'rf.html').resolve()}", soft_wrap=True, highlight=False)
