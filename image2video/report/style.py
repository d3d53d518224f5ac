"""One look for every figure: colours that colour-blind readers can tell apart, equal sizes of type, no global state."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

BLACK = "#000000"
INK = "#222222"
GREY = "#8a8a8a"
LIGHT = "#d9d9d9"
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#6f5f00", "#000000")
"""Okabe and Ito's colours, the yellow darkened so that a thin line of it is seen on white."""
DASHES: tuple[tuple[int, tuple[int, ...]], ...] = ((0, ()), (0, (4, 1)), (0, (1, 1)), (0, (5, 1, 1, 1)))
"""Line patterns: a second cue beside colour."""

_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.0,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.fonttype": "path",  # a reader's fonts would have other widths than those the labels were placed with
    "svg.hashsalt": "image2video",
}


@contextmanager
def drawing() -> Iterator[None]:
    """The style, for the figures that are made and written inside; the user's own settings come back afterwards."""
    with matplotlib.rc_context(_RC):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` × `height` inches that no global state knows of."""
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def colours(count: int) -> list[str]:
    """`count` colours of the palette, from the start again after the eighth."""
    return [PALETTE[i % len(PALETTE)] for i in range(count)]


def dashes(count: int) -> list[tuple[int, tuple[int, ...]]]:
    """`count` line patterns; the colour and the pattern of a line together do not repeat before the 32nd."""
    return [DASHES[(i + i // len(PALETTE)) % len(DASHES)] for i in range(count)]


def short_labels(labels: Sequence[str]) -> list[str]:
    """Candidates by their ops alone, as far as that names one: `shear_x(5) > shear_y(5)` becomes `shear_x/y`."""
    short = [_joined([part.partition("(")[0].strip() for part in label.split(">")]) for label in labels]
    return [label if short.count(name) > 1 else name for label, name in zip(labels, short, strict=True)]


def _joined(ops: list[str]) -> str:
    stems = {op.rpartition("_")[0] for op in ops}
    if len(ops) > 1 and len(stems) == 1 and "" not in stems:
        return f"{stems.pop()}_{'/'.join(op.rpartition('_')[2] for op in ops)}"
    return " > ".join(ops)


def same_y(axes: Sequence[Axes], low: float, high: float) -> None:
    """One vertical scale for panels that are read against each other."""
    for axis in axes:
        axis.set_ylim(low, high)


def png_bytes(figure: Figure, dpi: int = 120) -> bytes:
    """The figure as a PNG file's bytes, the same for the same figure (no date in it)."""
    buffer = io.BytesIO()
    with drawing():
        FigureCanvasAgg(figure).print_figure(buffer, format="png", dpi=dpi, metadata={"Software": "image2video"})
    return buffer.getvalue()


def svg_text(figure: Figure) -> str:
    """The figure as an SVG document whose letters are outlines, the same for the same figure."""
    buffer = io.BytesIO()
    with drawing():
        FigureCanvasSVG(figure).print_figure(buffer, format="svg", metadata={"Date": None, "Creator": "image2video"})
    return buffer.getvalue().decode()


def data_uri(content: bytes | str, mime: str) -> str:
    """A `data:` address that holds the content itself, in base64."""
    raw = content.encode() if isinstance(content, str) else content
    return f"data:{mime};base64,{base64.b64encode(raw).decode('ascii')}"
