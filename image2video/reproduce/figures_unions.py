"""Figure 4 of the paper: one field in every frame of a clip, mapped back to the image; nothing is trained."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

import shapely

from image2video.clip.any_clip import as_clip
from image2video.receptive_field import Reshaped, reshaped
from image2video.report import fields_figure
from image2video.report.table import genotype_text
from image2video.reproduce.drawing import Drawing
from image2video.reproduce.spec import Experiment, UnionCase

COLUMNS = ("transformation", "genotype", "one field", "union", "paper", "the paper's number is", "note")
_CLOSE = 0.01  # the paper prints two decimals, not always rounded
_LABEL = 22  # characters of a line beside the panels
_NOTE = (
    "Areas in square pixels. “The paper's number is” compares it with the union, and with one field plus its overlap "
    "with the field of the next frame, within 0.01."
)
_CAPTION = (
    "The same 3 × 3 field in every frame, and the frames' fields mapped back to the image; the darker a region, the "
    "more frames cover it. The letter shows how the content moves. One scale for all."
)


@dataclass(frozen=True)
class Union:
    """The areas of a case in square pixels: one field, all frames together, the first frame's overlap with the next."""

    case: UnionCase
    shape: Reshaped
    field: float
    overlap: float

    @property
    def area(self) -> float:
        """Of all frames' fields together."""
        return self.shape.area

    @property
    def explained(self) -> str:
        """Which area the paper's number is, in words; empty where it states none."""
        if self.case.paper is None:
            return ""
        areas = {"the union": self.area, "one field and its overlap with the next": self.field + self.overlap}
        found = [name for name, area in areas.items() if abs(area - self.case.paper) < _CLOSE]
        return found[0] if found else "neither"

    def record(self) -> dict[str, Any]:
        """The numbers as JSON values; `covered_by` is the area that exactly so many frames cover."""
        return {
            **{"name": self.case.name, "genotype": self.case.genotype, "T": self.case.T},
            **{"schedule": self.case.schedule, "field": self.field, "union": self.area, "paper": self.case.paper},
            "covered_by": {str(count): area for count, area in self.shape.overlap_areas.items()},
            "overlap_of_the_first_two": self.overlap,
            "the_papers_number_is": self.explained,
        }


def union_of(case: UnionCase) -> Union:
    """The areas of a case."""
    field = shapely.box(*case.field)
    height, width = case.image_size
    shape = reshaped(field, case.genotype, case.T, case.schedule, image_size=(height, width))
    overlap = shape.frames[0].intersection(shape.frames[1]).area if case.T > 1 else 0.0
    return Union(case, shape, float(field.area), float(overlap))


def draw_unions(experiment: Experiment) -> Drawing:
    """The figure and the table of an experiment's unions, one line per case."""
    found, first = [union_of(case) for case in experiment.unions], experiment.unions[0]
    lines = tuple(
        (
            one.case.name,
            genotype_text(str(as_clip(one.case.genotype))),
            f"{one.field:.4g}",
            f"{one.area:.2f}",
            "" if one.case.paper is None else f"{one.case.paper:g}",
            one.explained,
            " ".join(one.case.note.split()),
        )
        for one in found
    )
    parts = [f"{one.area:.2f} px² for {one.case.name}{_stated(one.case)}" for one in found]
    return Drawing(
        title="Unions of the frames' fields",
        figure=_figure(experiment),
        caption=_CAPTION,
        columns=COLUMNS,
        lines=lines,
        numbers=(2, 3, 4),
        headlines=(f"What {first.T} frames see together: {'; '.join(parts)}.",),
        notes=(_NOTE,),
        record={"unions": [one.record() for one in found]},
    )


def _figure(experiment: Experiment) -> Any:
    first = experiment.unions[0]
    height, width = first.image_size
    named = {textwrap.fill(one.name, _LABEL): one for one in experiment.unions}
    figure = fields_figure(
        {name: shapely.box(*one.field) for name, one in named.items()},
        {name: one.genotype for name, one in named.items()},
        image_size=(height, width),
        T=first.T,
        schedule=first.schedule,
        width=7.0,
    )
    last = figure.axes[first.T :: first.T + 1]
    for axis, one in zip(last, experiment.unions, strict=False):
        if one.paper is not None:
            axis.set_xlabel(axis.get_xlabel().replace(" px²", f" px²{_stated(one)}", 1))
    return figure


def _stated(case: UnionCase) -> str:
    return "" if case.paper is None else f" (paper: {case.paper:g})"
