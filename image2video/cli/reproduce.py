"""`image2video reproduce`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jsonargparse import Namespace
from rich.console import Console

from image2video.cli.arguments import collect
from image2video.cli.commands.reproduce import ReproduceOptions
from image2video.cli.progress import progress_bars
from image2video.cli.reproduce_check import print_check, print_hours, rehearse_arms
from image2video.cli.reproduce_table import print_drawings, print_outcomes
from image2video.errors import InputError, MissingError
from image2video.reproduce import Experiment, Run, Worker, experiments, load_experiment, parse_data
from image2video.reproduce.check import with_rows
from image2video.reproduce.figures import drawings
from image2video.reproduce.outcome import outcomes
from image2video.reproduce.pretrained import parse_weights
from image2video.reproduce.render import write
from image2video.reproduce.work import data_names
from image2video.runs.folders import FolderLock
from image2video.training import make_accelerator


def run(options: Namespace) -> None:
    """Does the runs that are missing, renders the table, prints it and where it is.

    Raises `MissingError` for data that are not there, after all other rows are done and rendered.
    """
    asked = collect(ReproduceOptions, options)
    if options.table is None:
        raise InputError(f"TABLE must be one of {', '.join(experiments())}, or a .yaml file of your own; got none")
    experiment, specs = load_experiment(options.table), parse_data(asked.data)
    places = parse_weights(asked.weights)
    runs = Worker.planned(experiment, asked.scale)
    if asked.max_minutes is not None and not 0 < asked.max_minutes < float("inf"):
        raise InputError(f"--max-minutes {asked.max_minutes:g}: it must be above 0")
    if asked.check or asked.rehearse:
        _try_out(experiment, asked)
        return
    if asked.rows is not None and asked.report_only:
        raise InputError(
            f"--rows {asked.rows}: no effect with --report-only, which shows all rows; leave one of them out"
        )
    wanted = _rows(experiment, asked)
    accelerator = make_accelerator(asked.device)
    works = accelerator.is_main_process and not asked.report_only  # who only looks at what there is disturbs nobody
    with FolderLock(asked.out, wanted=works):
        with progress_bars(show=accelerator.is_main_process) as progress:
            worker = Worker(
                asked.out,
                specs=specs,
                places=places,
                max_minutes=asked.max_minutes,
                retry=asked.retry,
                arms=None if asked.arms is None else asked.arms.split(","),
                known=data_names(runs),  # --rows may leave out the rows that need them
                progress=progress,
                accelerator=accelerator,
            )
            missing, left = ({}, []) if asked.report_only else _work(worker, wanted, asked.scale)
        if accelerator.is_main_process:
            _report(worker, experiment, runs, asked, missing, left)


def _try_out(experiment: Experiment, asked: ReproduceOptions) -> None:
    """Check or rehearse the rows that were asked for; no run is kept."""
    chosen = _rows(experiment, asked)
    if asked.check:
        print_check(Console(), chosen, asked.scale)
    if asked.rehearse:
        rehearse_arms(Console(), chosen, asked.scale, asked.device)


def _rows(experiment: Experiment, asked: ReproduceOptions) -> Experiment:
    """The table with the rows that were asked for; all of them without `--rows`."""
    return experiment if asked.rows is None else with_rows(experiment, asked.scale, asked.rows)


def _work(worker: Worker, experiment: Experiment, scale: str) -> tuple[dict[str, str], list[Run]]:
    """Do what is missing: the data that are not there, with the reason, and the runs that are left."""
    missing = worker.missing_data(experiment, scale)
    if worker.accelerator.is_main_process:
        print_hours(Console(), experiment, scale)
        for text in missing.values():
            Console(stderr=True).print(f"left out: {text}", soft_wrap=True, markup=False)
    try:
        return missing, worker.run(experiment, scale)
    except MissingError as error:
        raise MissingError(f"nothing could run for want of data: {', '.join(missing)}; see above") from error


def _report(
    worker: Worker,
    experiment: Experiment,
    runs: Sequence[Run],
    asked: ReproduceOptions,
    missing: Mapping[str, str],
    left: Sequence[Run],
) -> None:
    """Render and print what there is, and say what is not."""
    rows = outcomes(experiment, asked.scale, runs, worker.book)
    with progress_bars(show=True) as progress:
        device = worker.accelerator.device
        drawn = drawings(experiment, runs, worker.book, worker.shelf, device=device, progress=progress)
    files = write(experiment, asked.scale, rows, asked.out, drawn)
    console = Console()
    print_outcomes(console, experiment, asked.scale, rows)
    print_drawings(console, drawn)
    if left and not missing:
        console.print(f"{len(left)} runs are left: the same command goes on", soft_wrap=True)
    if any(line.errors for row in rows for line in row.lines) and not asked.retry:
        console.print("--retry tries the failed runs again", soft_wrap=True)
    if others := sum(worker.book.others(run) for run in runs):
        console.print(f"{others} runs of other settings or versions are in the folder; they count for nothing here")
    console.print(f"results: {files['html'].resolve()}", soft_wrap=True)
    if missing:
        raise MissingError(f"{len(left)} runs are left out for want of data: {', '.join(missing)}; see above")
