"""`image2video reproduce`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.markdown import Markdown

from image2video.cli.arguments import add_options as add_fields
from image2video.cli.arguments import collect
from image2video.cli.progress import progress_bars
from image2video.errors import InputError
from image2video.reproduce import Worker, experiments, load_experiment, parse_data
from image2video.reproduce.outcome import outcomes
from image2video.reproduce.render import markdown, write
from image2video.training import make_accelerator

EXAMPLE = "image2video reproduce table5 --scale smoke --out runs/paper"


@dataclass(frozen=True)
class ReproduceOptions:
    """Which table, at which size.

    Attributes:
        scale: smoke (digits, seconds), cpu (a small network, hours in all), gpu, paper (as the paper states it)
        data: where data sets are, as cifar10=npz:cifar10.npz,imagenet=folder:/data/imagenet (default: data/, as
            torchvision downloads them)
        out: folder of all results; tables share their runs
        max_minutes: begin no further run after so many minutes; the same command goes on
        retry: try failed runs again
        report_only: run nothing, render what there is
        device: auto, cpu, cuda or mps

    """

    scale: str = "smoke"
    data: str | None = None
    out: str = "image2video-paper"
    max_minutes: float | None = None
    retry: bool = False
    report_only: bool = False
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"


def add_options(parser: ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("table", type=str, help=f"one of {', '.join(experiments())}, or a .yaml file of the same form")
    add_fields(parser, ReproduceOptions)


def run(options: Namespace) -> None:
    """Does the runs that are missing, renders the table, prints it and where it is."""
    asked = collect(ReproduceOptions, options)
    experiment = load_experiment(options.table)
    if asked.max_minutes is not None and asked.max_minutes <= 0:
        raise InputError(f"--max-minutes {asked.max_minutes:g}: it must be above 0")
    accelerator = make_accelerator(asked.device)
    with progress_bars(show=accelerator.is_main_process) as progress:
        worker = Worker(
            asked.out,
            specs=parse_data(asked.data),
            max_minutes=asked.max_minutes,
            retry=asked.retry,
            progress=progress,
            accelerator=accelerator,
        )
        left = [] if asked.report_only else worker.run(experiment, asked.scale)
    if not accelerator.is_main_process:
        return
    rows = outcomes(experiment, asked.scale, worker.planned(experiment, asked.scale), worker.book)
    files = write(experiment, asked.scale, rows, asked.out)
    console = Console()
    console.print(Markdown(markdown(experiment, asked.scale, rows)))
    if left:
        console.print(f"{len(left)} runs are left: the same command goes on", soft_wrap=True)
    console.print(f"results: {files['html'].resolve()}", soft_wrap=True)
