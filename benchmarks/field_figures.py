"""The figures of receptive fields in docs/: the paper's Fig. 1b and Fig. 4, measured and computed here."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import shapely
from field_networks import FRAMES, SCHEDULE
from PIL import Image

from image2video.receptive_field import EffectiveField
from image2video.report import ErfPanel, erf_caption, erf_figure, fields_figure
from image2video.report.style import png_bytes, svg_text

EXAMPLE = {
    "translation\nby (1, 1)": f"translate_x({1 / 12}) > translate_y({1 / 12})",
    "rotation\nby 30°": "rotate(30)",
    "zoom out\nto a half": "scale(0.5)",
    "zoom in\nby 2": "scale(2)",
}


def write_erf_figures(
    folder: Path,
    panels: Mapping[str, Sequence[ErfPanel]],
    fields: Mapping[str, EffectiveField],
    *,
    model: str,
    fusion: str,
    images: str,
) -> None:
    """A figure per unit, `erf_frame.png` and `erf_averaged.png`, with a panel per genotype."""
    made = f"T = {FRAMES}, {SCHEDULE}; the genotype stands above each"
    for unit, row in panels.items():
        stem = "erf_frame" if "frame" in unit else "erf_averaged"
        caption = erf_caption([fields[unit]], model=f"{model} with {fusion}", images=images, clip=made)
        drawn = erf_figure({"": row}, columns=3, caption=caption, width=8.0)
        write_small(folder / f"{stem}.png", png_bytes(drawn, dpi=100))


def write_fields_figure(folder: Path) -> None:
    """The worked example of the paper: a field of 3×3 pixels in three frames of an image of 12×12."""
    drawn = fields_figure(shapely.box(4.5, 4.5, 7.5, 7.5), EXAMPLE, image_size=(12, 12), width=7.0)
    (folder / "fields.svg").write_text(svg_text(drawn), encoding="utf-8")


def write_small(path: Path, png: bytes) -> None:
    """Write a picture with a palette of 256 colours, a third of the size."""
    with Image.open(io.BytesIO(png)) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
