"""The reshaped receptive field: what the frames of a clip see of the reference image together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import shapely
from shapely.affinity import affine_transform
from shapely.geometry.base import BaseGeometry

from image2video.clip.any_clip import Clip, as_clip, steps_of
from image2video.clip.checks import check_size
from image2video.clip.matrices import inverse_affine
from image2video.errors import InputError, InputTypeError


@dataclass(frozen=True)
class Reshaped:
    """The fields of all frames in the reference image, x to the right and y down, in pixels.

    Attributes:
        polygon: their union.
        frames: the field of every frame, mapped back.
        overlaps: for every number of frames, what exactly so many of them see; the parts make up the union.
        genotype: what moved the frames.
        steps: the power of every frame, or its number in a frame set.
        image_size: (height, width) of the image.
        clipped: whether what lies outside the frame or the image was left out.
    """

    polygon: BaseGeometry
    frames: tuple[BaseGeometry, ...]
    overlaps: dict[int, BaseGeometry]
    genotype: Clip
    steps: tuple[float, ...]
    image_size: tuple[int, int]
    clipped: bool = False

    @property
    def area(self) -> float:
        """The area of the union in pixels."""
        return float(self.polygon.area)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of the union, as shapely orders them; NaN where nothing is left of it."""
        left, top, right, bottom = self.polygon.bounds
        return left, top, right, bottom

    @property
    def overlap_areas(self) -> dict[int, float]:
        """The area in pixels that exactly so many frames see."""
        return {count: float(part.area) for count, part in self.overlaps.items()}


def reshaped(
    field: shapely.Polygon,
    genotype: Clip | str,
    T: int,
    schedule: str | Sequence[float] = "from_zero",
    *,
    image_size: tuple[int, int],
    clip: bool = False,
) -> Reshaped:
    """The union, in the reference image, of one field that is mapped back from each of T frames.

    Departs from Casarin et al., CVPR 2024, Eq. 9, which swaps coordinates and does not hold for rotations: these are
    unions of polygons. The paper's example is a field of 3×3 and three frames. Its 19 for a translation by one pixel
    along both axes is what comes out here. Its 144 for "scaling by 2" is `scale(0.5)`, since our scale enlarges the
    content and so shrinks what a frame's field covers; `scale(2)` gives 9. Its 14.19 for rotation by 30° is no union:
    that is 11.41 about the field's centre and 16.61 about its corner. Photometric ops move nothing.

    Args:
        field: a polygon in pixels of a frame (`Field.polygon` makes one), x to the right and y down, of which pixel i
            covers i … i + 1; the same in every frame.
        genotype: what moves the frames; a frame set too.
        T: how many frames.
        schedule: its name, or the powers of the frames themselves, T numbers (of a frame set, the numbers of frames).
        image_size: (height, width) of the image.
        clip: leave out what lies outside the frame and, mapped back, outside the image.

    Returns:
        The union with its parts.

    Raises:
        InputError: a field without an area, a wrong number of powers, an unknown schedule, or frames that a set lacks.
        InputTypeError: a field that is no polygon.

    >>> import shapely
    >>> reshaped(shapely.box(7, 7, 10, 10), "translate_x(0.05) > translate_y(0.05)", 3, image_size=(20, 20)).area
    19.0
    """
    genotype = as_clip(genotype)
    height, width = check_size(image_size, "image_size")
    _check_field(field)
    if isinstance(schedule, str):
        steps = steps_of(genotype, schedule, T)
    else:
        steps = tuple(float(step) for step in schedule)
        if len(steps) != T:
            raise InputError(f"schedule must be a name, or a power for each of T = {T} frames; got {len(steps)} powers")
    genotype.check_steps(steps)
    image = shapely.box(0, 0, width, height)
    start = field.intersection(image) if clip else field
    frames = []
    for backward in inverse_affine(genotype.step_matrices(steps, height, width)).tolist():
        moved = _mapped(start, backward, height, width)
        frames.append(moved.intersection(image) if clip else moved)
    overlaps = _overlaps(frames)
    union = shapely.union_all(list(overlaps.values())) if overlaps else shapely.Polygon()
    return Reshaped(union, tuple(frames), overlaps, genotype, steps, (height, width), clip)


def _check_field(field: object) -> None:
    """Refuse what is no polygon with an area."""
    if not isinstance(field, shapely.Polygon | shapely.MultiPolygon):
        raise InputTypeError(f"the field must be a shapely polygon in pixels of the frame, got {type(field).__name__}")
    if not field.is_valid or field.area == 0:
        raise InputError(f"the field must be a valid polygon with an area, got {field.wkt:.80}")


def _mapped(polygon: BaseGeometry, matrix: list[list[float]], height: int, width: int) -> BaseGeometry:
    """A polygon moved by a matrix of centred pixels."""
    (a, b, tx), (c, d, ty), _ = matrix
    x, y = width / 2, height / 2
    # The matrix acts about the image's centre, shapely about the upper left corner.
    return affine_transform(polygon, [a, b, c, d, tx + x - a * x - b * y, ty + y - c * x - d * y])


def _overlaps(frames: Sequence[BaseGeometry]) -> dict[int, BaseGeometry]:
    """What exactly 1, 2, … of the polygons cover, without those that are empty."""
    parts: list[BaseGeometry] = []  # what exactly one, two, … of the polygons so far cover
    for polygon in frames:
        alone, grown = polygon, []
        for part in parts:
            alone = alone.difference(part)
        below = alone  # what the polygon lifts from the part before: nobody covered it until now
        for part in parts:
            grown.append(_areal(shapely.union(part.difference(polygon), below)))
            below = part.intersection(polygon)
        parts = [*grown, _areal(below)]
    return {count: part for count, part in enumerate(parts, 1) if not part.is_empty}


def _areal(geometry: BaseGeometry) -> BaseGeometry:
    """The polygons of a geometry: intersections may hold lines and points too."""
    if isinstance(geometry, shapely.Polygon | shapely.MultiPolygon):
        return geometry
    pieces = [part for part in getattr(geometry, "geoms", ()) if isinstance(part, shapely.Polygon)]
    return shapely.MultiPolygon(pieces)
