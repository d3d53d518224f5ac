"""What the frames of a clip do to a theoretical field: the field in every frame, and all of them in the image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import shapely
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path
from numpy.typing import NDArray

from image2video.clip.any_clip import Clip, as_clip
from image2video.clip.frame_set import FrameSet
from image2video.errors import InputError
from image2video.receptive_field import EffectiveField, Reshaped, reshaped
from image2video.report.erf_panel import pixels
from image2video.report.film import label_lines
from image2video.report.receptive_field import scale_bar
from image2video.report.style import GREY, INK, PALETTE, drawing, new_figure

_FRAME_COLOURS = (PALETTE[0], PALETTE[4], PALETTE[2], PALETTE[3], PALETTE[1], PALETTE[6], PALETTE[7])
_LETTER = ((0, 0), (0, 5), (1, 5), (1, 3), (2.4, 3), (2.4, 2), (1, 2), (1, 1), (3, 1), (3, 0))
"""The letter F, 3 wide and 5 high: no rotation and no mirror image of it is itself."""
_MOST_LINES = 24
_LARGER = 1.6  # times the sides of what must be seen, for the sake of what moves
_TITLE_LINE = 0.2  # inches
_FEWEST = 0.16  # of the darkest shade, for a single frame


def fields_figure(
    field: shapely.Polygon | Mapping[str, shapely.Polygon],
    genotypes: Mapping[str, Clip | str],
    *,
    image_size: tuple[int, int],
    T: int = 3,
    schedule: str = "from_zero",
    width: float = 8.0,
) -> Figure:
    """A row per genotype: the field in each of T frames, and the frames' fields mapped back to the image.

    The field is the same region of every frame, but the content below it moves (the letter and the grid of pixels).
    In the last column the shade says how many frames cover a region of the image, and so contribute to it. (Casarin et
    al., CVPR 2024, Fig. 4, with areas of true polygon unions.)

    Args:
        field: in pixels from the upper left corner, y down; one for all genotypes, or one by each name.
        genotypes: what moves the frames, by name; frame sets too, of at least T frames.
        image_size: (height, width) of the image.
        T: frames of the clip.
        schedule: the power of each frame, by name; `from_zero` where one is a frame set.
        width: of the figure, in inches.

    Returns:
        The figure.

    Raises:
        InputError: no genotype, one without a field, or a frame set of fewer frames or another schedule.
    """
    if not genotypes:
        raise InputError("no genotype to draw; give at least one, as {'translation': 'translate_x(0.1)'}")
    chains = {name: as_clip(chain) for name, chain in genotypes.items()}
    fields = dict(field) if isinstance(field, Mapping) else dict.fromkeys(chains, field)
    lacking = [name for name in chains if name not in fields]
    if lacking:
        raise InputError(f"no field for {', '.join(map(repr, lacking))}; field has {', '.join(map(repr, fields))}")
    shapes = {name: reshaped(fields[name], chain, T, schedule, image_size=image_size) for name, chain in chains.items()}
    steps = next(iter(shapes.values())).steps
    # All panels show the same part of the plane, so that areas can be compared by eye.
    bounds = [fields[name].bounds for name in chains] + [shape.polygon.bounds for shape in shapes.values()]
    rows = [(fields[name], chain) for name, chain in chains.items()]
    window = _window(_with_content(_around(bounds), rows, steps, image_size))
    breadth, height = window[2] - window[0], window[3] - window[1]
    cell = (width - 0.6) / (T + 1)
    titles = _titles(list(chains.values()), steps, cell)
    # A line more than one above a row of panels takes room of its own.
    more = sum(
        max(0, *(title.count("\n") for title in line)) + (row > 0 and any(line)) for row, line in enumerate(titles)
    )
    with drawing():
        figure = new_figure(width, len(chains) * (cell * height / breadth + 0.38) + 0.75 + _TITLE_LINE * more)
        axes = figure.subplots(len(chains), T + 1, squeeze=False)
        for line, above, (name, chain) in zip(axes, titles, chains.items(), strict=True):
            for t, step in enumerate(steps):
                _frame(line[t], fields[name], chain, step, image_size, window, t)
                line[t].set_title(above[t])
            _union(line[-1], shapes[name], image_size, window, fields[name], T)
            line[0].set_ylabel(name)
        axes[0, -1].set_title("in the image")
        shades = [Patch(facecolor=_shade(n, T), edgecolor=GREY, label=_frames(n)) for n in range(1, T + 1)]
        figure.legend(handles=shades, loc="outside lower right", ncols=T, title="covered by", title_fontsize=8)
    return figure


def _titles(chains: Sequence[Clip], steps: Sequence[float], width: float) -> list[list[str]]:
    """What stands above the panels, `width` inches wide, of every row: which frame it is, and what moved it.

    Rows below the first say it only where the first does not say it for them, as with frame sets.
    """
    all_alike = not any(isinstance(chain, FrameSet) for chain in chains)
    rows = []
    for row, chain in enumerate(chains):
        labels = [label_lines(chain.label(step), width) for step in steps]
        if row == 0:
            between = "\n" if isinstance(chain, FrameSet) else ",  "
            labels = [f"frame f$_{{{t}}}${between}{label}" for t, label in enumerate(labels)]
        rows.append(labels if row == 0 or not all_alike else [""] * len(labels))
    return rows


def variance_square(field: EffectiveField) -> shapely.Polygon:
    """The upright square with the centre and the variance of a measured field, as a stand-in that can be drawn.

    Args:
        field: what was measured.

    Returns:
        The square, in pixels of the image.
    """
    half = field.measures.spread * math.sqrt(12) / 2
    y, x = field.measures.centre
    return shapely.box(x - half, y - half, x + half, y + half)


def _frames(count: int) -> str:
    """A number of frames in words."""
    return "1 frame" if count == 1 else f"{count} frames"


Box = tuple[float, float, float, float]
"""left, top, right, bottom"""


def _around(boxes: Sequence[Box]) -> Box:
    """The smallest box around all of them."""
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def _with_content(
    box: Box,
    rows: Sequence[tuple[shapely.Polygon, Clip]],
    steps: Sequence[float],
    image_size: tuple[int, int],
) -> Box:
    """A box that also shows the letter of every frame, as far as it stays about that large."""
    width, height = box[2] - box[0], box[3] - box[1]
    for field, chain in rows:
        for step in steps:
            matrix = chain.matrix(step, *image_size).double().numpy()
            moved = _moved(_letter(field), matrix, image_size)
            both = _around([box, (*moved.min(0).tolist(), *moved.max(0).tolist())])
            if both[2] - both[0] <= _LARGER * width and both[3] - both[1] <= _LARGER * height:
                box = both
    return box


def _letter(field: shapely.Polygon) -> NDArray[np.float64]:
    """The letter's outline (n, 2) in the middle of the field."""
    left, top, right, bottom = field.bounds
    unit = 0.9 * min(right - left, bottom - top) / 5
    middle = np.array([(left + right) / 2, (top + bottom) / 2])
    return middle + (np.array(_LETTER) - np.array([1.5, 2.5])) * unit


def _window(box: Box) -> Box:
    """What all panels show: everything that is drawn, with a margin, out to whole pixels."""
    left, top, right, bottom = (round(edge, 6) for edge in box)  # else a last bit could add a row of pixels
    margin = max(1.0, 0.08 * max(right - left, bottom - top))
    return (
        math.floor(left - margin),
        math.floor(top - margin),
        math.ceil(right + margin),
        math.ceil(bottom + 1.6 * margin),
    )


def _frame(
    axis: Axes,
    field: shapely.Polygon,
    chain: Clip,
    step: float,
    image_size: tuple[int, int],
    window: Box,
    t: int,
) -> None:
    """One frame: the image's pixels and the letter as they lie in it, and the field."""
    height, width = image_size
    matrix = chain.matrix(step, height, width).double().numpy()
    _content(axis, matrix, field, image_size, window)
    colour = _FRAME_COLOURS[t % len(_FRAME_COLOURS)]
    axis.add_patch(PathPatch(_path(field), facecolor=colour, alpha=0.25, linewidth=0))
    axis.add_patch(PathPatch(_path(field), fill=False, edgecolor=colour, linewidth=1.6))
    _finish(axis, window, bar=t == 0)


def _union(
    axis: Axes,
    shape: Reshaped,
    image_size: tuple[int, int],
    window: Box,
    field: shapely.Polygon,
    T: int,
) -> None:
    """The image with all frames' fields mapped back; darker where more of them overlap."""
    _content(axis, np.eye(3), field, image_size, window, letter=False)
    for count, region in sorted(shape.overlaps.items()):
        axis.add_patch(PathPatch(_path(region), facecolor=_shade(count, T), linewidth=0))
    for t, polygon in enumerate(shape.frames):
        colour = _FRAME_COLOURS[t % len(_FRAME_COLOURS)]
        axis.add_patch(PathPatch(_path(polygon), fill=False, edgecolor=colour, linewidth=1.2))
    _finish(axis, window, bar=False)
    axis.set_xlabel(f"{_plain(shape.area)} px²\n(one frame: {_plain(field.area)})", fontsize=8)


def _plain(area: float) -> str:
    """An area with four digits or more."""
    return pixels(area) if area >= 1000 else f"{area:.4g}"


def _content(
    axis: Axes,
    matrix: NDArray[np.float64],
    field: shapely.Polygon,
    image_size: tuple[int, int],
    window: Box,
    *,
    letter: bool = True,
) -> None:
    """The image's grid of pixels (of several, where there are many), its border, the letter, moved by the matrix."""
    height, width = image_size
    # Lines every 1, 2, 4, … pixels: at most so many across a panel.
    step = 1
    while max(width, height) / step > _MOST_LINES * max(1.0, max(width, height) / (window[2] - window[0])):
        step *= 2
    ends = [((x, 0), (x, height)) for x in range(0, width + 1, step)]
    ends += [((0, y), (width, y)) for y in range(0, height + 1, step)]
    lines = [_moved(np.array(pair, dtype=np.float64), matrix, image_size) for pair in ends]
    axis.add_collection(LineCollection(lines, colors="#dcdcdc", linewidths=0.5, zorder=0))
    border = np.array([(0, 0), (width, 0), (width, height), (0, height), (0, 0)], dtype=np.float64)
    axis.plot(*_moved(border, matrix, image_size).T, color=GREY, linewidth=0.9, zorder=0)
    if letter:
        axis.fill(*_moved(_letter(field), matrix, image_size).T, color=INK, alpha=0.55, linewidth=0, zorder=1)


def _moved(
    points: NDArray[np.float64], matrix: NDArray[np.float64], image_size: tuple[int, int]
) -> NDArray[np.float64]:
    """Points (n, 2), x and y from the upper left corner, where the matrix takes them (its origin is the centre)."""
    centre = np.array([image_size[1] / 2, image_size[0] / 2])
    there = np.column_stack([points - centre, np.ones(len(points))]) @ matrix.T
    moved: NDArray[np.float64] = there[:, :2] / there[:, 2:] + centre
    return moved


def _finish(axis: Axes, window: Box, *, bar: bool) -> None:
    """Cut a panel to the window, without ticks or a frame."""
    left, top, right, bottom = window
    axis.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[], aspect="equal")
    axis.spines[:].set_visible(False)
    if not bar:  # one scale for all: a bar per row is enough
        return
    inner = axis.inset_axes((0, 0, 1, 1))
    inner.set(xlim=(0, right - left), ylim=(bottom - top, 0))
    inner.axis("off")
    scale_bar(inner, right - left, bottom - top, colour=INK)


def _shade(count: int, T: int) -> tuple[float, float, float]:
    """Blue, the darker the more frames; grey printing keeps the order."""
    strength = _FEWEST + (1 - _FEWEST) * (count - 1) / max(1, T - 1)
    full = np.array([0x08, 0x45, 0x80]) / 255
    red, green, blue = 1 - strength * (1 - full)
    return float(red), float(green), float(blue)


def _path(region: Any) -> Path:
    """A polygon or several of them, holes included, as one path."""
    if region.geom_type == "Polygon":
        rings = [region.exterior, *region.interiors]
        return Path.make_compound_path(*(Path(np.asarray(ring.coords)[:, :2], closed=True) for ring in rings))
    parts = [part for part in region.geoms if part.geom_type in ("Polygon", "MultiPolygon") and not part.is_empty]
    return Path.make_compound_path(*(_path(part) for part in parts))
