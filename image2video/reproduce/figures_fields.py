"""Figure 1b of the paper: the effective receptive fields of networks that were trained with different clips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from image2video import VideoWrap
from image2video.data import DataSource
from image2video.protocols import Progress
from image2video.receptive_field import EffectiveField, Unit
from image2video.receptive_field.survey import survey, survey_units
from image2video.report import ErfGrid, ErfPanel, erf_figure
from image2video.report.erf_panel import COLUMNS
from image2video.report.field_page import READING
from image2video.report.receptive_field import caption_text
from image2video.report.table import genotype_text
from image2video.reproduce.book import Book, Run
from image2video.reproduce.classify import fresh_network, wrapped
from image2video.reproduce.drawing import Drawing, finished, look_at
from image2video.reproduce.genotypes import Load
from image2video.runs.folders import torch_load
from image2video.runs.weights import load_state

_TITLE = "Effective receptive fields"
_SCORE = "class score"


@dataclass(frozen=True)
class _Measured:
    """The fields of one network by unit, and the clip that it sees."""

    title: str
    fields: dict[str, EffectiveField]
    genotype: str | None


def draw_fields(
    runs: Sequence[Run],
    book: Book,
    *,
    load: Load,
    device: torch.device,
    images: int,
    progress: Progress | None = None,
) -> Drawing:
    """The fields of a row's networks, from the weights of their first seed; `runs` are those, the bare one first.

    A column per arm, a row per unit: of one frame's features, which only a fusion can reshape; of the features averaged
    over the frames, maps brought back to the image; of the score of the predicted class. `images` test images are
    drawn. A network whose weights or field are missing is said in `gaps`; without the bare one nothing is drawn.
    Raises `MissingError` where the data are not there.
    """
    setting, title = runs[0].setting, f"{_TITLE}: {runs[0].row}"
    data = load(setting)
    pictures = _pictures(data, images, setting.seed)
    channels, height, width = data.input_size
    bare = fresh_network(runs[0].arm, setting, data, setting.seed)
    units = survey_units(bare, (channels, height, width)) | {_SCORE: Unit()}  # a wrapper has the bare one's layers

    def measured_of(run: Run) -> _Measured:
        return _measure(run, book, data, pictures, units, device)

    found, gaps = look_at(runs, measured_of, progress, stage="receptive fields", missing="No field")
    measured = list(found.values())
    if not measured or measured[0].title != runs[0].arm.title:
        gaps.append(f"Nothing is drawn without {runs[0].arm.title!r}, which the others are compared with.")
        return Drawing(title, None, gaps=tuple(gaps))
    return _drawing(title, runs, measured, data, pictures, gaps)


def trained_network(run: Run, book: Book, data: DataSource) -> nn.Module:
    """The network of a finished run with its last weights.

    Raises `InputError` where the run has failed or its weights are not there.
    """
    chosen, weights = finished(run, book)
    model = fresh_network(run.arm, run.setting, data, run.seed)
    model = wrapped(model, run.arm, run.setting, data, run.seed, chosen)
    load_state(model, torch_load(weights), str(weights))
    return model.eval()


def _pictures(data: DataSource, count: int, seed: int) -> Tensor:
    """So many test images, drawn by class."""
    chosen = data.test if count >= data.test.num_images else data.test.take(count, seed=seed)
    return torch.cat([images for images, _ in chosen.batches(chosen.num_images).epoch(0)])


def _measure(
    run: Run, book: Book, data: DataSource, images: Tensor, units: dict[str, Unit], device: torch.device
) -> _Measured:
    model = trained_network(run, book, data).to(device)
    found = survey({run.arm.title: model}, images, units, weights="trained")
    fields = {row: line[run.arm.title] for row, line in found.items()}
    return _Measured(run.arm.title, fields, str(model.genotype) if isinstance(model, VideoWrap) else None)


def _drawing(
    title: str,
    runs: Sequence[Run],
    measured: Sequence[_Measured],
    data: DataSource,
    images: Tensor,
    gaps: Sequence[str],
) -> Drawing:
    setting, last = runs[0].setting, measured[-1]
    rows = {row: {one.title: one.fields[row] for one in measured} for row in measured[0].fields}
    clips = [f"{one.title} {genotype_text(one.genotype)}" for one in measured if one.genotype is not None]
    caption = caption_text(
        model=setting.model,
        sizes="×".join(map(str, data.input_size[1:])),
        weights=f"each network trained on {setting.data} (seed {setting.seed})",
        images=f"{len(images)} of its test images",
        units=[field.described for field in last.fields.values()],
        clip=f"{'; '.join(clips)}; T = {setting.T}, {setting.clip_schedule}",
    )
    grid = ErfGrid.of(rows, caption)
    return Drawing(
        title=title,
        figure=erf_figure(grid.rows, width=7.5, relative=True),
        caption=caption,
        columns=COLUMNS,
        lines=tuple(grid.lines()),
        numbers=(2, 3, 4, 5),
        headlines=tuple(_sentence(row, panels) for row, panels in grid.rows.items()),
        notes=(READING,),
        gaps=tuple(gaps),
        record=_record(grid, measured, len(images)),
        picture=True,
    )


def _sentence(row: str, panels: Sequence[ErfPanel]) -> str:
    """The areas of a unit's fields beside the first one's, and which differ by more than two standard errors."""
    first, *others = panels
    listed, decided = [], []
    for panel in others:
        ratio, error = panel.growth(first)
        listed.append(f"{panel.name} {ratio:.2f}" + ("" if math.isnan(error) else f" ± {error:.2f}"))
        if abs(ratio - 1) > 2 * error:
            decided.append(panel.name)
    return (
        f"{row[0].upper()}{row[1:]}: the area that holds half of the gradient, as a multiple of that of "
        f"“{first.name}”: {', '.join(listed) or 'nothing to compare'}. Apart by more than two standard errors: "
        f"{', '.join(decided) or 'none'}."
    )


def _record(grid: ErfGrid, measured: Sequence[_Measured], images: int) -> dict[str, Any]:
    """The measures without the maps, which are large."""
    clips = {one.title: one.genotype for one in measured}
    rows = []
    for row, panels in grid.rows.items():
        found = [{"genotype": clips[p.name]} | {k: v for k, v in p.record().items() if k != "map"} for p in panels]
        rows.append({"row": row, "unit": measured[-1].fields[row].described, "networks": found})
    return {"caption": grid.caption, "images": images, "rows": rows}
