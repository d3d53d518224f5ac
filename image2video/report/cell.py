"""The search cell as a graph: what the relaxed weights preferred, what was kept, and the chain that came of it."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, PathPatch
from matplotlib.path import Path

from image2video.report.result import SearchRecord
from image2video.report.style import BLACK, GREY, INK, PALETTE, drawing, new_figure, short_labels

_RADIUS = 0.13
_WIDEST_LABEL = 20  # characters: more would reach the neighbouring edge's label


def cell_figure(search: SearchRecord, epoch: int = -1, *, width: float = 10.0) -> Figure:
    """The cell at one entry of the weight history, nodes on a line, every edge an arc.

    An edge's width is its largest softmax weight τ. Its label names the op of that weight and the op that the selection
    kept (without magnitudes where they are long); the edges of the chosen path are black, their kept op bold.

    Args:
        search: the search.
        epoch: the entry, the last by default.
        width: of the figure, in inches.

    Returns:
        The figure.
    """
    weights = search.weights[epoch]
    names = list(search.ops)
    if max(map(len, names)) > _WIDEST_LABEL:
        names = short_labels(names)
    positions = _positions(search)
    with drawing():
        figure = new_figure(width, 0.52 * width)
        axis = figure.add_subplot()
        for index, (source, target) in enumerate(search.edges):
            row = weights[index]
            best = row.index(max(row))
            on_path = index in search.path
            # Equal weights give the thinnest line: only what τ prefers shows.
            thickness = 0.8 + 14 * (row[best] - 1 / len(row))
            apex = _arc(axis, positions[source], positions[target], thickness, on_path)
            _label(axis, apex, names[best], row[best], names[search.chosen[index]], on_path)
        _nodes(axis, search, positions)
        axis.set_aspect("equal")
        axis.autoscale_view()
        axis.margins(0.03)
        axis.axis("off")
    return figure


def _positions(search: SearchRecord) -> list[tuple[float, float]]:
    """One point per node: on a line, two units apart, so that a label fits between neighbours."""
    return [(2.0 * i, 0.0) for i in range(search.inputs + search.nodes)]


def _lift(span: float) -> float:
    """How far an arc over `span` units leaves the line: alternately above and below, farther for longer arcs."""
    steps = round(span / 2)
    side = 1 if steps % 2 == 0 else -1
    return 0.0 if steps == 1 else side * (0.4 + 0.55 * steps)


def _arc(axis: Axes, a: tuple[float, float], b: tuple[float, float], line: float, on_path: bool) -> tuple[float, float]:
    """Draw one edge from node to node; gives the point halfway along it, where its label goes."""
    lift = _lift(b[0] - a[0])
    height = lift * 4 / 3  # a cubic whose two inner points are this high reaches `lift` halfway
    inset = (b[0] - a[0]) * 0.22
    vertices = [a, (a[0] + inset, height), (b[0] - inset, height), b]
    colour = BLACK if on_path else GREY
    path = Path(vertices, [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])
    axis.add_patch(
        PathPatch(path, fill=False, edgecolor=colour, linewidth=max(line, 0.8), alpha=1.0 if on_path else 0.6, zorder=1)
    )
    return (a[0] + b[0]) / 2, lift


def _label(axis: Axes, at: tuple[float, float], best: str, weight: float, kept: str, on_path: bool) -> None:
    """Two lines at the arc's middle: the op with the largest weight, and the op that was kept."""
    plate = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    look: dict[str, Any] = {"ha": "center", "fontsize": 8, "bbox": plate, "zorder": 2}
    x, y = at
    axis.text(x, y + 0.04, f"τ {weight:.2f} {best}", va="bottom", color=INK, **look)
    colour, strength = (BLACK, "bold") if on_path else (INK, "normal")
    axis.text(x, y - 0.05, f"kept {kept}", va="top", color=colour, weight=strength, **look)


def _nodes(axis: Axes, search: SearchRecord, positions: list[tuple[float, float]]) -> None:
    """Circles with the node's number; inputs carry the word, the last node is the clip that the network sees."""
    last = len(positions) - 1
    for index, (x, y) in enumerate(positions):
        is_input = index < search.inputs
        fill = PALETTE[5] if is_input else "white"
        axis.add_patch(Circle((x, y), _RADIUS, facecolor=fill, edgecolor=INK, linewidth=1.2, zorder=3))
        text = str(index - search.inputs + 1)
        if is_input:
            text = "in" if search.inputs == 1 else f"in{index + 1}"
        axis.text(x, y, text, ha="center", va="center", fontsize=8, zorder=4)
        if index == last:
            axis.text(x + 0.25, y, "clip", ha="left", va="center", fontsize=8, zorder=4)
