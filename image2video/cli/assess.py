"""`image2video assess`."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path

from jsonargparse import Namespace
from rich.console import Console
from torch import nn

from image2video.assess import Assessment, assess
from image2video.assess.driver import check_numbers
from image2video.assess.files import REPORT, SCRIPT, write_model, write_result, write_script
from image2video.cli.arguments import collect
from image2video.cli.assess_task import run_task
from image2video.cli.commands.assess import AssessOptions
from image2video.cli.follow import NETWORK, follow_run, say
from image2video.cli.heads import load_weights_file, published_head, wrapped_head
from image2video.cli.images import load_matching_data, warn_of_seen_images
from image2video.cli.models import bare_model, check_classes
from image2video.cli.options import BackboneOptions, DataOptions, MachineOptions
from image2video.cli.own_code import imported, own_lines
from image2video.cli.progress import progress_bars
from image2video.cli.tables import assessment_table
from image2video.data import DataSource
from image2video.errors import InputError
from image2video.runs.folders import OutputDirectory
from image2video.runs.texts import user_path
from image2video.search import get_space
from image2video.training import make_accelerator
from image2video.training.trained import TrainedRun
from image2video.wrap.builders import Builder, is_installed
from image2video.wrap.video_wrap import VideoWrap

_PARTS = ("test", "holdout")


def run(options: Namespace) -> None:
    """Says whether a clip helps, and writes report, record, model and a script."""
    if options.task is not None:
        run_task(options, asdict(collect(AssessOptions, options)))
        return
    if options.task_images is not None:
        raise InputError("--task-images: no effect without --task mmseg:CONFIG, whose images it chooses")
    options, origin, notes = follow_run(options, NETWORK)
    backbone, machine = collect(BackboneOptions, options), collect(MachineOptions, options)
    data_options, how = collect(DataOptions, options), collect(AssessOptions, options)
    _check(backbone, how)
    read = "test" if how.part == "test" else "train"
    say("assess", notes)
    data, line = load_matching_data(data_options, backbone, machine.seed, run=origin, parts=(read,), subset=True)
    images = data.test if how.part == "test" else data.holdout
    if images is None:
        raise InputError("--part holdout needs held-out images; give --holdout above 0")
    if data.task != "classification":
        raise InputError(
            f"assess compares classifiers, and {data.name} has a class for every pixel; give a segmentor of "
            "mmsegmentation by --task mmseg:CONFIG, or use search there"
        )
    _warn_of_training_images(origin, data_options, how.part, machine.seed)
    model, builder = _network(backbone, data, machine)
    say("assess", [line])
    colours = {"mean": data.mean, "std": data.std}
    about = {
        "model": backbone.model if builder is None else builder.name.removeprefix("timm:"),
        "weights": "published" if backbone.weights is None else Path(backbone.weights).name,
        "data": f"{data.short_name}, {how.part} images",
        "images": line.removeprefix("images: "),
    }
    with OutputDirectory(how.out, "assess", overwrite=how.overwrite) as folder:
        with progress_bars() as progress:
            assessment = assess(
                model,
                images,
                max_cost=how.max_cost,
                minutes=how.minutes,
                candidates=how.candidates,
                space=how.space,
                max_images=how.max_images,
                finetune=how.finetune,
                seed=machine.seed,
                mean=data.mean,
                std=data.std,
                about=about,
                progress=progress,
            )
        write_result(folder, assessment)
        write_model(folder, assessment, model.cpu(), builder, **colours)
        own = None if builder is None else own_lines(builder)
        # A builder that a program of the user's registered is not there in another process.
        script = data.resizing is not None and builder is not None and (own is not None or is_installed(builder))
        if data.resizing is not None and script:
            size = data.input_size[1]
            write_script(folder, data.classes, image_size=size, resizing=data.resizing, own=own, **colours)
        folder.finish(verdict=assessment.verdict, options=asdict(how) | imported(options))
    _print(assessment, Path(how.out), script=script)


def _check(backbone: BackboneOptions, how: AssessOptions) -> None:
    """Refuse what cannot be assessed, before any image is read."""
    if backbone.weights is None and not backbone.pretrained:
        raise InputError("without --weights FILE or --pretrained the network is random; say which weights to assess")
    if backbone.head == "drop":
        raise InputError("--head drop: an assessment needs the classifier of the weights; leave it out")
    if how.part not in _PARTS:
        raise InputError(f"--part must be one of {', '.join(_PARTS)}, got {how.part!r:.80}")
    check_numbers(how.max_cost, minutes=how.minutes, candidates=how.candidates, finetune=how.finetune)
    get_space(how.space)


def _network(backbone: BackboneOptions, data: DataSource, machine: MachineOptions) -> tuple[nn.Module, Builder | None]:
    """The bare network with its weights, and its recipe; None where a folder of `save_pretrained` has none."""
    if backbone.weights is not None and Path(backbone.weights).is_dir():
        model, builder = _from_folder(backbone, data)
    else:
        model, builder = bare_model(backbone, data, machine.seed)
        if backbone.weights is not None:
            load_weights_file(model, backbone, data, needed=True)
        else:
            published_head(model, backbone, data, needed=True)
    model = model.to(make_accelerator(machine.device).device)
    check_classes(model, data)
    return model, builder


def _from_folder(backbone: BackboneOptions, data: DataSource) -> tuple[nn.Module, Builder | None]:
    """The bare network of a wrapped one whose frames do not mix: it is what was there before the clip."""
    wrapped = VideoWrap.from_pretrained(str(backbone.weights))
    if wrapped.plan.sites:
        raise InputError(
            f"{backbone.weights} was wrapped with a fusion, whose frames depend on each other: without it the network "
            "is not the one that was trained; give the weights of the bare network"
        )
    wrapped_head(wrapped, backbone, data, needed=True)
    builder, clip = wrapped.builder, f"{wrapped.genotype}, T = {wrapped.T}"
    say("assess", [f"the network of {backbone.weights} is assessed without its clip ({clip}), which averages already"])
    return wrapped.unwrap(), builder


def _print(assessment: Assessment, out: Path, *, script: bool) -> None:
    """The table, the three sentences, and where the rest lies."""
    console = Console()
    console.print(assessment_table(assessment))
    tuning = () if assessment.tuning is None else (assessment.tuning.sentence(),)
    for text in (*assessment.sentences(), *tuning, *assessment.notes):
        console.print(text, highlight=False, markup=False)
    files = [out / REPORT, out / SCRIPT] if script else [out / REPORT]
    console.print(f"report: {', '.join(map(str, files))}", highlight=False, markup=False)


def _warn_of_training_images(run: TrainedRun | None, data: DataOptions, part: str, seed: int) -> None:
    """Warn where the run of the weights was, or may have been, trained on the images."""
    if part == "holdout":
        warn_of_seen_images(run, data, seed)
        return
    scheme, _, then = str((run.options if run is not None else {}).get("data", "")).partition(":")
    if scheme != "folder" or not data.data.startswith("folder:"):
        return
    trained, asked = (user_path(path).resolve() for path in (f"{then}/train", data.data.partition(":")[2]))
    if asked.is_relative_to(trained):
        warnings.warn(
            f"the weights were trained on images of {trained}, and {data.data} lies in it: what helps on images that "
            "the network has seen says nothing of others; give images that it has not seen",
            stacklevel=3,
        )
