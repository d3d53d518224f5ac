"""The work of a search, unit by unit, with a checkpoint after each."""

from __future__ import annotations

from pathlib import Path

from image2video.runs.folders import OutputDirectory
from image2video.search.cell.topology import found_clip
from image2video.search.checkpoint import load_run, save_run
from image2video.search.epochs import one_shot_epoch, search_epoch, tune_epoch
from image2video.search.run import SearchRun
from image2video.search.select.selection import Selection
from image2video.search.state.state import CHECKPOINT
from image2video.search.state.units import Unit
from image2video.search.tensorboard import Curves

_EPOCHS = ("search", "sampled", "tune")


def work(
    run: SearchRun, selection: Selection, out: Path | None, folder: OutputDirectory | None, *, resume: bool
) -> None:
    """Carry out all units that are left, from the checkpoint in `out` where `resume` asks for it.

    `folder` is `out` as the main process holds it; the others have None.
    """
    # The main process's folder also records that the checkpoints are its own.
    base = out if folder is None else folder
    checkpoint = None if base is None else base / CHECKPOINT
    if resume and checkpoint is not None:
        load_run(run, checkpoint)
    curves = Curves(None if folder is None else folder / "tensorboard", run.space, run.state.done)
    try:
        _carry_on(run, selection, checkpoint, curves)
    finally:
        curves.close()


def _carry_on(run: SearchRun, selection: Selection, checkpoint: Path | None, curves: Curves) -> None:
    """Carry out the units that are left; after each the checkpoint is whole."""
    units = selection.units(run.space, run.config)
    tune_epochs = max((unit.index + 1 for unit in units if unit.kind == "tune"), default=0)
    run.measurements = sum(_measurements(unit, run) for unit in units)
    for number in range(run.state.done, len(units)):
        frames = run.state.frames
        _carry_out(units[number], run, selection, tune_epochs)
        run.state.done = number + 1
        run.tick()
        # Epochs that the budget leaves out cost nothing: a checkpoint after each could take longer than the budget.
        idle = units[number].kind in _EPOCHS and run.state.frames == frames
        if checkpoint is not None and not idle:
            save_run(run, checkpoint)
        curves.add(units[number], number, run.state)
    if run.state.chain is None:
        run.state.chain = str(found_clip(run.state.decisions, run.space, run.cell))
        run.state.magnitudes = run.cell.candidate_magnitudes() if run.config.learn_magnitudes else None


def _measurements(unit: Unit, run: SearchRun) -> int:
    """How often a unit scores the held-out images, for the progress: a node once for every edge that it loses."""
    if unit.kind == "node":
        return len(run.space.incoming(unit.index)) - 1
    return int(unit.kind in ("edge", "score"))


def _carry_out(unit: Unit, run: SearchRun, selection: Selection, tune_epochs: int) -> None:
    if unit.kind == "search":
        search_epoch(run, unit.index, moves_tau=selection.moves_tau)
    elif unit.kind == "sampled":
        one_shot_epoch(run, unit.index)
    elif unit.kind == "tune":
        tune_epoch(run, unit.index, tune_epochs, moves_tau=selection.moves_tau)
    elif unit.kind != "score":
        selection.decide(unit, run)
    elif run.spent() < 1:  # a score after the budget would be one pass too many
        run.score_chosen()
