"""The grid of a token sequence for images of any size: it follows from the trace, and is never guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from image2video.trace.scale import Scale

Size = tuple[int, int]


@dataclass(frozen=True)
class TokenGrid:
    """The grid of a sequence as traced, and how it follows from the size of the image.

    Args:
        image: (height, width) of the traced image.
        grid: (rows, columns) of the tokens for it; of one part, where a frame has several.
        rows: how many rows an image of another height has; None where the trace does not tell.
        columns: likewise, for the width.
        parts: how many sequences a frame had (windows, patches).
    """

    image: Size
    grid: Size
    rows: Scale | None = None
    columns: Scale | None = None
    parts: int = 1

    def candidates(self, image: Size, parts: int, *, rounded: bool = False) -> list[Size]:
        """List the grids that a sequence can have.

        Args:
            image: (height, width) of the image.
            parts: how many sequences a frame has now.
            rounded: whether sizes may also be rounded otherwise than in the trace: a model pads a map with an odd side,
                and the traced one had none.

        Returns:
            The grids (rows, columns); more than one where the trace leaves a choice, which the number of tokens makes.
        """
        if image == self.image:
            return [self.grid]
        found: list[Size] = []
        split = self.parts > 1 or parts > 1
        if split:  # Windows keep their size, and their number changes.
            found.append(self.grid)
        if self.rows is None or self.columns is None:
            return found
        rows, columns = (_sizes(self.rows, image[0], rounded), _sizes(self.columns, image[1], rounded))
        for height in rows:
            for width in columns:
                found.append((height, width))
                if split:  # A map smaller than a window is one window.
                    found.append((min(height, self.grid[0]), min(width, self.grid[1])))
                if height <= self.grid[0] and width <= self.grid[1]:  # Or it is padded to one.
                    found.append(self.grid)
        return found


def _sizes(scale: Scale, pixels: int, rounded: bool) -> tuple[int, ...]:
    """Return the numbers of places along an axis."""
    return (Scale(scale.step, None) if rounded else scale).sizes(pixels)


def grid_for(grids: Sequence[TokenGrid], image: Size | None, tokens: int, parts: int = 1) -> Size | None:
    """Return the grid of a sequence.

    Args:
        grids: what the trace tells of it, for each call of the module that it comes from.
        image: (height, width) of the image; None where it is not known.
        tokens: the length of the sequence, without prefix tokens.
        parts: how many sequences a frame has.

    Returns:
        (rows, columns); None where no grid, or more than one, has so many places.
    """
    if image is None:
        return None
    for rounded in (False, True):
        fitting: list[Size] = []
        for known in grids:
            for grid in known.candidates(image, parts, rounded=rounded):
                if grid[0] * grid[1] == tokens and grid not in fitting:
                    fitting.append(grid)
        if fitting:
            return fitting[0] if len(fitting) == 1 else None
    return None
