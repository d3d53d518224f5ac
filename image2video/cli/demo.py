"""`image2video demo`."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from image2video.cli.arguments import add_fields, collect
from image2video.cli.progress import progress_bars
from image2video.experiments import DemoConfig, render_table, report_path, run_demo, verdict_sentence

EXAMPLE = "image2video demo --seeds 1 --out demo"


def add_options(parser: ArgumentParser) -> None:
    """The command's options."""
    add_fields(parser, DemoConfig)


def run(options: Namespace) -> None:
    """Runs the comparison, prints its table and the path of the report."""
    config = collect(DemoConfig, options)
    with progress_bars() as progress:
        result = run_demo(config, progress=progress)
    console = Console()
    console.print(render_table(result))
    console.print(verdict_sentence(result), highlight=False)
    console.print(f"report: {report_path(config).resolve()}", soft_wrap=True)
