"""`image2video assess --task mmseg:CONFIG`: a trained segmentor in place of a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from rich.console import Console

from image2video.assess.driver import check_numbers
from image2video.assess.files import REPORT, SCRIPT
from image2video.assess.segmentor import SegmentorAssessment, assess_segmentor
from image2video.assess.segmentor.driver import read_segmentor
from image2video.assess.segmentor.files import CONFIG, write_segmentor_files
from image2video.cli.arguments import collect, dashed
from image2video.cli.commands.assess import SegmentorOptions
from image2video.cli.options import BackboneOptions, DataOptions, MachineOptions
from image2video.cli.own_code import imported
from image2video.cli.progress import progress_bars
from image2video.cli.tables import assessment_table
from image2video.errors import InputError
from image2video.runs.folders import OutputDirectory
from image2video.search import get_space
from image2video.training import make_accelerator

BUILDER = "mmseg"


def run_task(options: Namespace, how: Mapping[str, Any]) -> None:
    """Assesses a segmentor, and writes report, record, config and a script; `how` are the command's own options."""
    asked, machine = collect(SegmentorOptions, options), collect(MachineOptions, options)
    weights = collect(BackboneOptions, options).weights
    path = _path(str(asked.task))
    _check(options, weights, how)
    device = make_accelerator(machine.device).device
    segmentor = read_segmentor(path, weights, asked.task_images, device)
    about = {
        "model": segmentor.description,
        "config": segmentor.name,
        "weights": Path(segmentor.weights).name,
        "data": segmentor.loader,
    }
    with OutputDirectory(how["out"], "assess", overwrite=how["overwrite"]) as folder:
        with progress_bars() as progress:
            assessment = assess_segmentor(
                segmentor,
                max_cost=how["max_cost"],
                minutes=how["minutes"],
                candidates=how["candidates"],
                space=how["space"],
                max_images=how["max_images"],
                seed=machine.seed,
                about=about,
                progress=progress,
            )
        write_segmentor_files(folder, assessment, segmentor)
        folder.finish(verdict=assessment.verdict, options={**how, **asdict(asked)} | imported(options))
    _print(assessment, Path(how["out"]))


def _path(text: str) -> str:
    """The path of the config of `mmseg:CONFIG`."""
    name, _, path = text.partition(":")
    if name != BUILDER or not path:
        raise InputError(f"--task {text}: assess knows segmentors of mmsegmentation; give --task {BUILDER}:CONFIG")
    return path


def _check(options: Namespace, weights: str | None, how: Mapping[str, Any]) -> None:
    """Refuse what has no effect with a config, or cannot be assessed, before anything is built."""
    given = [
        name
        for source, taken in ((DataOptions, ()), (BackboneOptions, ("weights",)))
        for name, default in asdict(source()).items()
        if name not in taken and getattr(options, name) != default
    ]
    given += ["part"] if how["part"] != "test" else []
    if given:
        raise InputError(
            f"{', '.join(map(dashed, given))}: no effect with --task, whose config says which network and which "
            "images; --task-images chooses between val and test"
        )
    if how["finetune"]:
        raise InputError(
            f"--finetune: no effect with --task; a segmentor is trained by its own library, with the config that an "
            f"assessment writes: python tools/train.py {Path(how['out']) / CONFIG} --cfg-options load_from=CHECKPOINT "
            "model.video.fusion=gsf"
        )
    if weights is None:
        raise InputError("--task without --weights CHECKPOINT is a random segmentor; say which weights to assess")
    check_numbers(how["max_cost"], minutes=how["minutes"], candidates=how["candidates"])
    get_space(how["space"])


def _print(assessment: SegmentorAssessment, out: Path) -> None:
    """The table, the three sentences, and where the rest lies."""
    console = Console()
    console.print(assessment_table(assessment))
    for text in (*assessment.sentences(), *assessment.notes):
        console.print(text, highlight=False, markup=False)
    files = (out / REPORT, out / CONFIG, out / SCRIPT)
    console.print(f"report: {', '.join(map(str, files))}", highlight=False, markup=False)
