"""The receptive fields of a comparison's trained networks, measured after training and shown in its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from image2video.clip.any_clip import clip_in_words
from image2video.data import DataSource
from image2video.errors import Image2VideoError
from image2video.receptive_field.survey import survey, survey_units
from image2video.report import ErfGrid, ErfPanel
from image2video.report.receptive_field import caption_text
from image2video.wrap.video_wrap import VideoWrap

SHOWN = ("bare", "none", "searched")
"""The arms of the demo whose fields the report shows, the bare one first."""
IMAGES = 16


def measure_fields(model: nn.Module, data: DataSource, title: str) -> dict[str, Any]:
    """The fields of a trained network on a few training images, as JSON values for `fields_record`.

    There is a panel for every unit of `survey_units`. A network whose field cannot be measured gives the reason under
    `error`: a picture must not cost a training run.
    """
    channels, height, width = data.input_size
    try:
        units = survey_units(model, (channels, height, width))
        images = next(iter(data.train.batches(min(IMAGES, data.train.num_images)).epoch(0)))[0]
        found = survey({title: model}, images, units, weights="trained")
    except Image2VideoError as error:
        return {"error": str(error)}
    fields = {row: line[title] for row, line in found.items()}
    clip = ""
    if isinstance(model, VideoWrap) and model.genotype is not None:
        clip = clip_in_words(model.genotype, model.T, str(model.to_video.schedule))
    return {
        "panels": {row: ErfPanel.of(title, field).record() for row, field in fields.items()},
        "units": [field.described for field in fields.values()],
        "size": [height, width],
        "images": len(images),
        "clip": clip,
    }


def fields_record(measured: Sequence[Mapping[str, Any]], *, model: str, data: str) -> dict[str, Any]:
    """Several networks' `measure_fields` as the record of an `ErfGrid`, the bare one first.

    It has no panels where fewer than two networks were measured. The reasons of the others stand under `errors`.
    """
    good = [fields for fields in measured if "panels" in fields]
    reasons = [str(fields["error"]) for fields in measured if "error" in fields]
    errors = {"errors": reasons} if reasons else {}
    if len(good) < 2:
        return errors
    rows = {}
    for row in good[0]["panels"]:
        rows[row] = [ErfPanel.from_record(fields["panels"][row]) for fields in good if row in fields["panels"]]
    last = good[-1]
    caption = caption_text(
        model=model,
        sizes=f"{last['size'][0]}×{last['size'][1]}",
        weights=f"each network trained on {data}",
        images=f"{last['images']} of its training images",
        units=list(last["units"]),
        clip=str(last["clip"]),
    )
    return ErfGrid(rows, caption).record() | errors
