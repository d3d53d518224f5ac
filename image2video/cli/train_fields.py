"""The receptive fields that `image2video train` draws after training: the network without its clip, and with it."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from image2video.cli.commands.train import FieldOptions
from image2video.cli.rf_job import beside
from image2video.clip.any_clip import clip_in_words
from image2video.clip.deep_video import DeepVideo
from image2video.clip.image_to_video import Image2Video
from image2video.data import DataSource
from image2video.errors import Image2VideoError
from image2video.receptive_field.survey import survey, survey_units
from image2video.report import ErfGrid, erf_caption, erf_figure, field_tables
from image2video.report.style import png_bytes
from image2video.runs.folders import add_to_run, atomic_write_bytes
from image2video.wrap.video_wrap import VideoWrap

CHEAP = 64
"""Pixels per side up to which the fields take a second or two and are drawn unless something else is said."""
_IMAGES = 16


def wanted(options: FieldOptions, data: DataSource) -> bool:
    """Whether the fields are drawn for these images."""
    return max(data.input_size[1:]) <= CHEAP if options.fields is None else options.fields


def print_fields(model: VideoWrap, data: DataSource, name: str, out: Path, console: Console) -> None:
    """Print the fields' table and write `erf.png` into the run's folder; a line says why where there are none."""
    size = (data.input_size[0], data.input_size[1], data.input_size[2])
    if not isinstance(model.to_video, Image2Video | DeepVideo):
        console.print("receptive fields: none to draw, since the frames are drawn at random", highlight=False)
        return
    weights = f"trained on {data.short_name}"
    try:
        units = survey_units(model, size, frame=model.to_video.genotype.nearest(model.to_video.options.steps))
        device = next(model.parameters()).device
        # Fields of training images: the test images stay unseen by all but the final evaluation.
        batches = data.train.batches(min(_IMAGES, data.train.num_images), device=device)
        images = next(iter(batches.epoch(0)))[0]
        found = survey(beside(model, size), images, units, weights=weights)
    except Image2VideoError as error:
        console.print(f"receptive fields: not measured: {error}", highlight=False, markup=False)
        return
    shown = [list(line.values())[-1] for line in found.values()]
    clip = clip_in_words(model.to_video.genotype, model.T, model.to_video.schedule)
    clip = clip if model.clip_at is None else f"{clip}, beginning at {model.clip_at}"
    grid = ErfGrid.of(found, erf_caption(shown, model=name, images="training images", clip=clip))
    atomic_write_bytes(add_to_run(out, "erf.png"), png_bytes(erf_figure(grid.rows, caption=grid.caption, width=7.5)))
    for table in field_tables(grid):
        console.print(table)
