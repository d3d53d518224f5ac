"""`image2video search`."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

from jsonargparse import Namespace
from rich.console import Console

from image2video.cli.arguments import collect, record
from image2video.cli.follow import NETWORK, follow_run
from image2video.cli.options import OutputOptions
from image2video.cli.progress import progress_bars
from image2video.cli.search_job import SearchJob, prepare
from image2video.cli.search_task import TaskJob, prepare_task
from image2video.cli.tables import curve_table, front_lines, ranking_table
from image2video.clip.genotype import Genotype
from image2video.experiments import render_table
from image2video.experiments.candidate_runs import compare, comparison_folder, planned_frames
from image2video.experiments.output import environment
from image2video.experiments.search_output import what_tells, write_search_outputs
from image2video.protocols import Progress, named
from image2video.report import ComparisonResult, random_sentence
from image2video.report.table import count_text
from image2video.runs.folders import FolderLock, add_to_run
from image2video.search import SearchResult, SearchSpace


def run(options: Namespace) -> None:
    """Searches, trains what it is compared with, prints the genotype, and writes report and results."""
    output = collect(OutputOptions, options)
    job: SearchJob | TaskJob
    if options.task is None:
        options, origin, notes = follow_run(options, NETWORK)
        job = prepare(options, origin, notes)
    else:
        job = prepare_task(options)
    show = job.accelerator.is_main_process
    # The whole command holds the folder: it adds to the run after its search.
    with FolderLock(job.out, wanted=show), progress_bars(show=show) as progress:
        result = job.search(
            job.config,
            job.out,
            resume=output.resume,
            overwrite=output.overwrite,
            progress=progress,
            settings=record(options),
        )
        if not show:
            return
        _print_found(result, job)
        facts = record(options) | environment(job.accelerator.device)
        report = write_search_outputs(result, job.data, model=job.model, facts=facts)
        comparison = None
        if isinstance(job, SearchJob) and job.candidates is not None:
            comparison = _compared(job, result, progress)
            write_search_outputs(result, job.data, model=job.model, facts=facts, comparison=comparison)
    console = Console()
    if comparison is not None:
        console.print(render_table(comparison))
    console.print(random_sentence(comparison, what_tells(result, job.data)), highlight=False)
    console.print(f"genotype: {result.genotype}", soft_wrap=True, highlight=False)
    console.print(f"report: {report.resolve()}", soft_wrap=True, highlight=False)


def _compared(job: SearchJob, result: SearchResult, progress: Progress | None) -> ComparisonResult:
    """The comparison, in a folder inside the search's."""
    assert job.candidates is not None  # else there is nothing to compare

    def search_again(selection: str, number: int, folder: Path) -> Genotype:
        config = replace(job.config, selection=selection, seed=job.config.seed + number)
        reported = named(progress, f"{selection} search")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the candidates' choices: the report shows what they gave
            again = job.search(config, folder, resume=True, progress=reported).genotype
            assert isinstance(again, Genotype), "no candidate is a search of frames"
            return again

    assert isinstance(result.space, SearchSpace), "no comparison is made of clips at places of a network"
    frames = planned_frames(job.candidates, job.final, images=job.data.train.num_images, space=result.space)
    Console(stderr=True).print(
        f"comparison: {job.final.seeds} seeds, {job.final.epochs} epochs (--final-epochs), at most "
        f"{count_text(frames)} training frames; the search took {count_text(result.frames)}",
        highlight=False,
    )
    return compare(
        result,
        job.candidates,
        job.final,
        data=job.data,
        out=add_to_run(job.out, comparison_folder(job.final)),
        network=job.network,
        search_again=search_again,
        accelerator=job.accelerator,
        progress=progress,
    )


def _print_found(result: SearchResult, job: SearchJob | TaskJob) -> None:
    """What the search itself says, before the comparison begins."""
    console = Console()
    if result.ranking is not None:
        console.print(ranking_table(result.ranking))
        for line in (*front_lines(result.ranking), *filter(None, [result.ranking.left_out_sentence()])):
            console.print(line, soft_wrap=True, highlight=False, markup=False)
    if result.frame_choice is not None:
        console.print(curve_table(result.frame_choice))
    score = result.state.score
    if score is not None:
        accuracy, error = 100 * score["accuracy"], 100 * score["accuracy_error"]
        console.print(
            f"the discretised cell: held-out {job.task.metric} {accuracy:.2f} ± {error:.2f} % "
            f"({score['images']} images)",
            highlight=False,
        )
    console.print(result.decided_sentence(), highlight=False)
    if result.front:
        console.print(result.front_sentence(), soft_wrap=True, highlight=False, markup=False)
    console.print(f"found: {result.genotype}", soft_wrap=True, highlight=False)
