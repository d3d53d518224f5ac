"""The receptive fields of a comparison's trained networks, measured after training and shown in its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from image2video.data import DataSource
from image2video.errors import Image2VideoError
from image2video.receptive_field.survey import survey, survey_units
from image2video.report import ErfGrid, ErfPanel
from image2video.report.receptive_field import caption_text
from image2video.wrap.video_wrap import VideoWrap

SHOWN = ("bare", "none", "searched")
"""The arms of the demo whose fields the report shows, the bare one first."""
IMAGES = 16


def measure_fields(model: nn.Module, data: DataSource, title: str, *, frame: int = 0) -> dict[str, Any]:
    """The fields of a trained network on a few training images, as plain JSON values, for `fields_record`.

    One panel per unit (`survey_units`), with what the units are. Where a network has no field that can be measured, the
    reason under `error`: a picture must not cost a training run.
    """
    channels, height, width = data.input_size
    try:
        units = survey_units(model, (channels, height, width), frame=frame)
        images = next(iter(data.train.batches(min(IMAGES, data.train.num_images)).epoch(0)))[0]
        found = survey({title: model}, images, units, weights="trained")
    except Image2VideoError as error:
        return {"error": str(error)}
    fields = {row: line[title] for row, line in found.items()}
    return {
        "panels": {row: ErfPanel.of(title, field).record() for row, field in fields.items()},
        "units": [field.described for field in fields.values()],
        "size": [height, width],
        "images": len(images),
        "clip": f"{model.genotype}, T = {model.T}, {model.to_video.schedule}" if isinstance(model, VideoWrap) else "",
    }


def fields_record(measured: Sequence[Mapping[str, Any]], *, model: str, data: str) -> dict[str, Any]:
    """The record of `ErfGrid` of several networks' `measure_fields`, bare first; empty where not two were measured.

    The reasons of those that could not be measured are kept under `errors`.
    """
    good = [fields for fields in measured if "panels" in fields]
    errors = [str(fields["error"]) for fields in measured if "error" in fields]
    if len(good) < 2:
        return {"errors": errors} if errors else {}
    rows = {
        row: [ErfPanel.from_record(fields["panels"][row]) for fields in good if row in fields["panels"]]
        for row in good[0]["panels"]
    }
    last = good[-1]
    caption = caption_text(
        model=model,
        sizes=f"{last['size'][0]}×{last['size'][1]}",
        weights=f"each network trained on {data}",
        images=f"{last['images']} of its training images",
        units=list(last["units"]),
        clip=str(last["clip"]),
    )
    return ErfGrid(rows, caption).record() | ({"errors": errors} if errors else {})
