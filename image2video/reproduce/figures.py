"""What an experiment has drawn when its runs are done: fields, predictions, or unions that need no run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from image2video.errors import Image2VideoError, MissingError
from image2video.protocols import Progress
from image2video.reproduce.book import Book, Run
from image2video.reproduce.data import Shelf, without_mmsegmentation
from image2video.reproduce.drawing import Drawing
from image2video.reproduce.figures_fields import draw_fields
from image2video.reproduce.figures_unions import draw_unions
from image2video.reproduce.spec import Experiment, Setting


def drawings(
    experiment: Experiment,
    runs: Sequence[Run],
    book: Book,
    shelf: Shelf,
    *,
    device: torch.device,
    progress: Progress | None = None,
) -> list[Drawing]:
    """The figures of an experiment, one per row that has runs; none where it asks for none of this kind.

    `runs` are those of one scale. What cannot be drawn is said in the drawing, with the reason; nothing is trained.
    """
    if experiment.figure == "unions":
        return [draw_unions(experiment)]
    by_row: dict[str, list[Run]] = {}
    for run in runs:
        if run.drawn:
            by_row.setdefault(run.row, []).append(run)
    return [_of_row(experiment, row, mine, book, shelf, device, progress) for row, mine in by_row.items()]


def _of_row(
    experiment: Experiment,
    row: str,
    runs: Sequence[Run],
    book: Book,
    shelf: Shelf,
    device: torch.device,
    progress: Progress | None,
) -> Drawing:
    try:
        draw = draw_fields if experiment.figure == "fields" else _scenes(runs[0].setting)
        return draw(runs, book, load=shelf, device=device, images=experiment.images, progress=progress)
    except MissingError as error:
        return Drawing(row, None, gaps=(f"Nothing is drawn for want of data: {error}",))
    except Image2VideoError as error:  # the scores are there to be shown all the same
        return Drawing(row, None, gaps=(f"Nothing is drawn: {error}",))


def _scenes(setting: Setting) -> Callable[..., Drawing]:
    try:
        from image2video.reproduce.figures_scenes import draw_scenes  # mmsegmentation is optional
    except ImportError as error:
        raise without_mmsegmentation(setting, error) from error
    return draw_scenes
