"""Effective receptive fields as a grid of maps on one scale, with their ellipses and measures."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Ellipse, Rectangle
from matplotlib.patheffects import Stroke, withStroke
from numpy.typing import NDArray

from image2video.errors import InputError
from image2video.receptive_field import Comparison, EffectiveField
from image2video.report.erf_panel import HALF, ErfPanel, counted, deviations, with_error
from image2video.report.film import caption_lines
from image2video.report.style import BLACK, INK, drawing, new_figure, png_bytes, svg_text
from image2video.runs.folders import atomic_write_bytes

COLOUR_MAP = "viridis"
_GAMMA = 0.5
_BRIGHTEST = 99.5  # percentile: single pixels on a network's grid of strides would leave the rest of a map black
_DEVIATIONS = 2
_TITLE = 24  # characters of a line of a panel's name


def erf_figure(
    rows: Mapping[str, Sequence[ErfPanel]],
    *,
    caption: str = "",
    columns: int | None = None,
    width: float = 9.0,
    relative: bool = False,
) -> Figure:
    """A grid of effective receptive fields.

    All maps have one colour scale: the gradient of a pixel, as multiples of an even spread (the square root of it is
    what the colours step by, so that tails are seen). The ellipse spans two standard deviations along each main axis.
    Every panel has a bar with its length in pixels.

    Args:
        rows: panels by the name of their row, with maps of one size.
        caption: goes below (`erf_caption`).
        columns: break a row after so many panels.
        width: of the figure, in inches.
        relative: write below each map, instead of its area, how many times that of the row's first map it is, and
            leave out the names of a row that has those of the first row (for many columns).

    Returns:
        The figure.

    Raises:
        InputError: no panel, or maps of different sizes.
    """
    grid = _grid(rows, columns)
    panels = [panel for _, row in grid for panel in row]
    if not panels:
        raise InputError("no field to draw; give at least one panel")
    sizes = sorted({panel.map.shape for panel in panels})
    if len(sizes) > 1:
        raise InputError(f"got maps of sizes {sizes}; one scale needs maps of one size")
    height, breadth = sizes[0]
    across = max(len(row) for _, row in grid)
    cell = (width - 1.0) / across
    lines = textwrap.wrap(caption, int(width * 15))
    norm = _norm([panel.density for panel in panels])
    with drawing():
        below = 0.42 if relative else 0.62  # inches for the two lines below a map
        figure = new_figure(width, len(grid) * (cell * height / breadth + below) + 0.16 * len(lines) + 0.2)
        axes = figure.subplots(len(grid), across, squeeze=False)
        first_names = [panel.name for panel in grid[0][1]]
        for number, (line, (name, row)) in enumerate(zip(axes, grid, strict=True)):
            repeats = relative and number > 0 and [panel.name for panel in row] == first_names
            for axis, panel in zip(line, row, strict=False):
                text = _relative(panel, row[0]) if relative else _measured(panel)
                image = _draw(axis, panel, norm, "" if repeats else _broken(panel.name), text)
            for axis in line[len(row) :]:
                axis.set_visible(False)
            if name:
                line[0].set_ylabel(textwrap.fill(name, max(10, int(cell * height / breadth * 11))))
        bar = figure.colorbar(image, ax=axes, shrink=0.9, aspect=30, pad=0.015, extend="max")
        bar.set_label("gradient per pixel, × even spread")
        if lines:
            figure.supxlabel("\n".join(lines), fontsize=8, x=0.01, ha="left")
    return figure


def comparison_figure(found: Comparison, *, model: str, images: str = "images", width: float = 9.0) -> Figure:
    """The figure of `compare`: a panel per model, on one scale, with a caption of what was measured.

    Args:
        found: the fields.
        model: what the models are, for the caption.
        images: what the images are, for the caption.
        width: of the figure, in inches.

    Returns:
        The figure.
    """
    panels = [ErfPanel.of(name, field) for name, field in found.fields.items()]
    caption = erf_caption(found.fields.values(), model=model, images=images)
    return erf_figure({"": panels}, columns=4, caption=caption, width=width)


def _grid(rows: Mapping[str, Sequence[ErfPanel]], columns: int | None) -> list[tuple[str, Sequence[ErfPanel]]]:
    """The rows as they are drawn, each broken after `columns` panels."""
    grid: list[tuple[str, Sequence[ErfPanel]]] = []
    for name, row in rows.items():
        step = columns or max(1, len(row))
        for start in range(0, len(row), step):
            grid.append((name if start == 0 else "", row[start : start + step]))
    return grid


def _broken(name: str) -> str:
    """A genotype's text in lines of at most three ops' names or so, broken before `>`."""
    return "\n".join(caption_lines(name, _TITLE, len)) if len(name) > _TITLE else name


def _norm(maps: Sequence[NDArray[np.float64]]) -> Normalize:
    """One colour scale for all maps, from 0."""
    return PowerNorm(_GAMMA, vmin=0.0, vmax=max(float(np.percentile(m, _BRIGHTEST)) for m in maps))


def _measured(panel: ErfPanel) -> str:
    """The area that holds half of the gradient, the deviation and the axes."""
    m = panel.measures
    return f"half in {counted(m.area[HALF])} px, σ {m.spread:.3g} px\naxes {panel.axes}"


def _relative(panel: ErfPanel, first: ErfPanel) -> str:
    """That area as a multiple of another panel's, and the axes, in two short lines."""
    axes = panel.axes.replace(" at ", ", ")
    if panel is first:
        return f"{counted(panel.measures.area[HALF])} px\n{axes}"
    return f"× {with_error(*panel.growth(first), 2)}\n{axes}"


def _draw(axis: Axes, panel: ErfPanel, norm: Normalize, title: str, text: str) -> AxesImage:
    """One map with its ellipse, its bar, a title above and a text below."""
    height, width = panel.map.shape
    image = axis.imshow(panel.density, cmap=COLOUR_MAP, norm=norm, extent=(0, width, height, 0))
    m = panel.measures
    long, short = deviations(m.spread, m.anisotropy)
    ellipse = Ellipse(
        (m.centre[1], m.centre[0]),
        2 * _DEVIATIONS * long,
        2 * _DEVIATIONS * short,
        angle=-m.angle,  # the axis of y points down
        fill=False,
        edgecolor="white",
        linewidth=1.1,
        path_effects=_outline(2.2),
    )
    axis.add_patch(ellipse)
    scale_bar(axis, width, height)
    axis.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    axis.set_title(title)
    axis.set_xlabel(text, fontsize=7.5)
    axis.spines[:].set_visible(False)
    return image


def scale_bar(axis: Axes, width: float, height: float, colour: str = "white") -> None:
    """A bar with its length in pixels, lower left in an axis whose unit is a pixel and whose y goes down."""
    length = bar_length(width)
    left, bottom = 0.04 * width, 0.955 * height
    thickness = 0.014 * height
    around = BLACK if colour == "white" else "white"
    bar = Rectangle(
        (left, bottom - thickness), length, thickness, color=colour, linewidth=0, path_effects=_outline(1.4, around)
    )
    axis.add_patch(bar)
    text = axis.text(left, bottom - 2 * thickness, f"{length:g} px", ha="left", va="bottom", fontsize=7, color=colour)
    text.set_path_effects([withStroke(linewidth=1.6, foreground=around)])


def bar_length(width: float) -> float:
    """The largest of 1, 2, 5, 10, … pixels that is at most 0.3 of the width.

    >>> bar_length(224), bar_length(16)
    (50, 2)
    """
    power = 10 ** math.floor(math.log10(0.3 * width))
    return max(step * power for step in (1, 2, 5) if step * power <= 0.3 * width)


def _outline(width: float, colour: str = INK) -> list[Any]:
    """A line around a line, so that it is seen on any colour."""
    return [Stroke(linewidth=width, foreground=colour), Stroke()]


def erf_caption(fields: Iterable[EffectiveField], *, model: str, images: str = "images", clip: str = "") -> str:
    """What a figure of fields must say: network, input size, weights, number of images, and every unit.

    Args:
        fields: what was measured; other sizes and weights are each named.
        model: what the network is.
        images: what the images are.
        clip: how the frames were made.

    Returns:
        The caption.
    """
    fields = list(fields)
    return caption_text(
        model=model,
        sizes=_joined(f"{field.size[0]}×{field.size[1]}" for field in fields),
        weights=_joined(_weights(field.weights) for field in fields),
        images=f"{_joined(str(field.images) for field in fields)} {images}",
        units=[field.described for field in fields],
        clip=clip,
    )


def _weights(stated: str) -> str:
    """`random weights`, `weights trained on digits`."""
    return f"{stated} weights" if len(stated.split()) == 1 else f"weights {stated}"


def caption_text(*, model: str, sizes: str, weights: str, images: str, units: Iterable[str], clip: str = "") -> str:
    """The caption from its parts in words; see `erf_caption`."""
    made = f" Clip: {clip}." if clip else ""
    return (
        f"{model} at {sizes} pixels, {weights}, {images}.{made} Mean |∂ unit / ∂ pixel| of {_joined(units, '; ')}. "
        f"One scale; ellipse: {_DEVIATIONS} standard deviations along the main axes."
    )


def _joined(texts: Iterable[str], between: str = " and ") -> str:
    """The texts, each once."""
    return between.join(dict.fromkeys(texts))


def save_figure(figure: Figure, path: str | Path, *, dpi: int = 192) -> list[Path]:
    """Write a figure as a picture and as vectors.

    Args:
        figure: what is drawn.
        path: of the files, whose suffixes become .png and .svg.
        dpi: dots per inch of the picture.

    Returns:
        Both paths.
    """
    stem = Path(path)
    written = [stem.with_suffix(".png"), stem.with_suffix(".svg")]
    atomic_write_bytes(written[0], png_bytes(figure, dpi=dpi))
    atomic_write_bytes(written[1], svg_text(figure).encode())
    return written
