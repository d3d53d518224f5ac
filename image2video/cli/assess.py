"""`image2video assess`."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from image2video.assess import assess
from image2video.assess.files import REPORT, SCRIPT, write_model, write_result, write_script
from image2video.cli.arguments import add_fields, collect
from image2video.cli.follow import NETWORK, follow_run, say
from image2video.cli.heads import load_weights_file, published_head
from image2video.cli.images import load_matching_data, warn_of_seen_images
from image2video.cli.models import bare_model, check_classes
from image2video.cli.options import BackboneOptions, DataOptions, MachineOptions
from image2video.cli.progress import progress_bars
from image2video.cli.tables import assessment_table
from image2video.errors import InputError
from image2video.runs.folders import OutputDirectory
from image2video.runs.texts import user_path
from image2video.training import make_accelerator
from image2video.training.trained import TrainedRun

EXAMPLE = (
    "image2video assess --model tf_efficientnet_lite0 --weights lite0.safetensors --data folder:flowers --max-cost 3 "
    "--out runs/assess"
)
_PARTS = ("test", "holdout")


@dataclass(frozen=True)
class AssessOptions:
    """What is looked for, and where the answer goes.

    Attributes:
        max_cost: the most that an image may cost, as a multiple of the network as it is
        minutes: about how long it may take; fewer candidates are looked at then (default: no limit)
        candidates: how many chains and frames to look at
        space: search space that they come from
        max_images: at most so many labelled images
        part: which images: test, or holdout for a part of the training images
        out: folder of the results
        overwrite: replace the assessment in this folder
    """

    out: str
    max_cost: float = 3.0
    minutes: float | None = None
    candidates: int = 60
    space: str = "pose"
    max_images: int = 2000
    part: str = "test"
    overwrite: bool = False


def add_options(parser: ArgumentParser) -> None:
    """The command's options."""
    add_fields(parser, DataOptions, BackboneOptions, MachineOptions, AssessOptions)


def run(options: Namespace) -> None:
    """Says whether a clip helps, and writes report, record, model and a script."""
    options, origin, notes = follow_run(options, NETWORK)
    backbone, machine = collect(BackboneOptions, options), collect(MachineOptions, options)
    data_options, how = collect(DataOptions, options), collect(AssessOptions, options)
    if backbone.weights is None and not backbone.pretrained:
        raise InputError("without --weights FILE or --pretrained the network is random; say which weights to assess")
    if backbone.weights is not None and Path(backbone.weights).is_dir():
        raise InputError(
            f"{backbone.weights} is a folder of a wrapped model, which averages over frames already; give the weights "
            "of the bare network"
        )
    if backbone.head == "drop":
        raise InputError("--head drop: an assessment needs the classifier of the weights; leave it out")
    if how.part not in _PARTS:
        raise InputError(f"--part must be one of {', '.join(_PARTS)}, got {how.part!r:.80}")
    read = "test" if how.part == "test" else "train"
    say("assess", notes)
    data, line = load_matching_data(data_options, backbone, machine.seed, run=origin, parts=(read,), subset=True)
    images = data.test if how.part == "test" else data.holdout
    if images is None:
        raise InputError("--part holdout needs held-out images; give --holdout above 0")
    if data.task != "classification":
        raise InputError(f"assess compares classifiers, and {data.name} has a class for every pixel; use search there")
    _warn_of_training_images(origin, data_options, how.part, machine.seed)
    device = make_accelerator(machine.device).device
    model, builder = bare_model(backbone, data, machine.seed)
    if backbone.weights is not None:
        load_weights_file(model, backbone, data, needed=True)
    else:
        published_head(model, backbone, data, needed=True)
    model = model.to(device)
    check_classes(model, data)
    say("assess", [line])
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
                seed=machine.seed,
                mean=data.mean,
                std=data.std,
                about={
                    "model": backbone.model,
                    "weights": "published" if backbone.weights is None else Path(backbone.weights).name,
                    "data": f"{data.short_name}, {how.part} images",
                    "images": line.removeprefix("images: "),
                },
                progress=progress,
            )
        colours = {"mean": data.mean, "std": data.std}
        write_result(folder, assessment)
        write_model(folder, assessment, model.cpu(), builder, **colours)
        if data.resizing is not None:
            write_script(folder, data.classes, image_size=data.input_size[1], resizing=data.resizing, **colours)
        folder.finish(verdict=assessment.verdict, options=asdict(how))
    console = Console()
    console.print(assessment_table(assessment))
    for sentence in assessment.sentences():
        console.print(sentence, highlight=False, markup=False)
    script = f", {Path(how.out) / SCRIPT}" if data.resizing is not None else ""
    for note in assessment.notes:
        console.print(note, highlight=False, markup=False)
    console.print(f"report: {Path(how.out) / REPORT}{script}", highlight=False, markup=False)


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
