"""Figures that are made and not drawn, for tests of what stands around them: the report of a small run takes as long as
the run. What is drawn is the subject of tests/report/ and of tests/receptive_field/, and the README's are drawn.
"""

import base64
from collections.abc import Iterator
from typing import Any, BinaryIO

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG

from image2video.report import style

PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")


class Pixel(FigureCanvasAgg):
    """Writes a picture of one pixel for every figure."""

    def print_figure(self, filename: BinaryIO, *about: Any, **options: Any) -> None:
        filename.write(PIXEL)


class Nothing(FigureCanvasSVG):
    """Writes an empty drawing for every figure."""

    def print_figure(self, filename: BinaryIO, *about: Any, **options: Any) -> None:
        filename.write(b'<svg xmlns="http://www.w3.org/2000/svg"/>')


def quick_figures() -> Iterator[None]:
    """The body of a fixture under which figures are written at a glance."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "FigureCanvasAgg", Pixel)
        patch.setattr(style, "FigureCanvasSVG", Nothing)
        yield
