"""A rehearsal of a table: every arm trained for two steps and tested on generated images, by the code of a real run."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from image2video.errors import Image2VideoError, UnsupportedError
from image2video.protocols import Progress
from image2video.reproduce.book import Run
from image2video.reproduce.check import SHAPES
from image2video.reproduce.genotypes import searched_on
from image2video.reproduce.miniatures import MINIATURES
from image2video.reproduce.segment_small import small_options
from image2video.reproduce.spec import Cell, Experiment, Setting
from image2video.reproduce.work import Worker, data_names

STEPS, BATCH, HELD_OUT = 2, 2, 1 / 3
_IMAGES, _MINUTES = 6, 0.5
_SEARCH = {"epochs": 1, "tune_epochs": 0}
_CUT = (
    *("train_images", "holdout", "epochs", "finetune_epochs", "batch_size", "seeds", "recipe", "search"),
    *("augment_minutes", "steps", "options", "weights"),
)


@dataclass(frozen=True)
class Rehearsed:
    """An arm of a row after its rehearsal: steps and seconds that it took, or why it failed."""

    row: str
    arm: Cell
    setting: Setting
    steps: int
    seconds: float
    problem: str | None = None


def rehearse(
    experiment: Experiment, scale: str, folder: str | Path, *, device: str = "auto", progress: Progress | None = None
) -> Iterator[tuple[Rehearsed, ...]]:
    """Train every arm of every row at a scale for two steps on miniatures of its data, and test it: row after row.

    Networks, readers, recipes and what chooses clips and policies are those of a real run, with one seed; `cut_down`
    says what is smaller. An arm of T times the epochs takes T times the steps. `folder` takes miniatures, searches and
    weights, and may be thrown away; a rehearsal that was killed goes on there. An arm that fails has a `problem`.

    Raises `InputError` for an unknown scale, or one at which the table has no row, `UnsupportedError` in several
    processes.
    """
    Worker.planned(experiment, scale)
    folder = Path(folder)
    worker = Worker(folder / "runs", device=device, progress=progress)
    if worker.accelerator.num_processes > 1:
        raise UnsupportedError(
            f"a rehearsal runs in one process, not in {worker.accelerator.num_processes}; start it without a launcher"
        )
    for row in experiment.rows:
        if scale in row.settings:
            yield tuple(_row(worker, dataclasses.replace(experiment, rows=(row,)), scale, folder / "data"))


def cut_down(setting: Setting, others: Iterable[str] = ()) -> Setting:
    """A setting for two steps on a miniature; `others` are the data sets that its arms search on besides.

    Smaller are: the images that are used (six, two of them held out; of digits three of each class), batches (two
    images; digits, ten), epochs and steps, the search (one epoch, no tuning) and the time for policies; weights are
    random, and nothing is compiled. Where nothing is trained, nothing is here. For segmentation see `small_options`.
    """
    digits = setting.config is None and setting.data == "digits"
    classes = SHAPES["digits"][0]
    small = dataclasses.replace(
        setting,
        train_images=3 * classes if digits else _IMAGES,
        holdout=HELD_OUT,
        epochs=min(1, setting.epochs),
        finetune_epochs=1,
        batch_size=classes if digits else BATCH,
        seeds=1,
        more_seeds={},
        weights=None,
        recipe={key: value for key, value in setting.recipe.items() if key != "compile"},
        search={key: value for key, value in setting.search.items() if key != "batch_size"} | _SEARCH,
        augment_minutes=min(setting.augment_minutes, _MINUTES),
        steps=None if setting.config is None else STEPS,
        options={} if setting.config is None else _options(setting),
    )
    return dataclasses.replace(small, elsewhere={name: _elsewhere(setting, name) for name in others})


def _options(setting: Setting) -> dict[str, Any]:
    try:
        from image2video.reproduce.segment_reading import read_config
    except ImportError:  # mmsegmentation is optional; arms that need it will say so
        return dict(setting.options)
    random = {} if setting.weights is None else {"model.backbone.checkpoint_path": ""}
    return {**setting.options, **random, **small_options(read_config(setting).to_dict(), batch_size=BATCH)}


def _elsewhere(setting: Setting, data: str) -> dict[str, Any]:
    """What is other than in a setting cut down where a clip is searched for on another data set."""
    given = setting.elsewhere.get(data, {})
    cut = cut_down(dataclasses.replace(setting, **{"data": data, "image_size": None, "options": {}, **given}))
    return {key: getattr(cut, key) for key in {*given, *_CUT}}


def _row(worker: Worker, experiment: Experiment, scale: str, folder: Path) -> Iterator[Rehearsed]:
    (row,) = experiment.rows
    setting, arms = row.settings[scale], experiment.arms_at(scale, row)
    try:
        others = {data for arm in arms if (data := searched_on(arm)) is not None}
        cut = dataclasses.replace(row, settings={scale: cut_down(setting, others)})
        experiment = dataclasses.replace(experiment, rows=(cut,))
        runs = Worker.planned(experiment, scale)
        for data in data_names(runs):
            if data in MINIATURES and data not in worker.shelf.specs:
                shutil.rmtree(folder / data, ignore_errors=True)  # half of it may be there
                worker.shelf.specs[data] = MINIATURES[data](folder / data)
        why = "; ".join(worker.missing_data(experiment, scale).values())
        worker.run(experiment, scale)
    except Image2VideoError as error:  # of this row; the others are still to be rehearsed
        for arm in arms:
            yield Rehearsed(row.name, arm, setting, 0, 0.0, f"{type(error).__name__}: {error}")
        return
    for run in runs:
        record = worker.book.read(run) or {"error": f"left out: {why}", "seconds": 0.0}
        yield _rehearsed(run, setting, record)


def _rehearsed(run: Run, setting: Setting, record: Mapping[str, Any]) -> Rehearsed:
    steps = 0 if "error" in record else record["images_seen"] // run.setting.batch_size
    return Rehearsed(run.row, run.arm, setting, steps, record["seconds"], record.get("error"))
