"""`image2video search`."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from image2video.cli.arguments import add_options as add_fields
from image2video.cli.arguments import collect, record
from image2video.cli.models import bare_model, load_matching_data, warn_of_seen_images
from image2video.cli.options import BackboneOptions, DataOptions, MachineOptions, OutputOptions
from image2video.cli.progress import progress_bars
from image2video.cli.tables import ranking_table
from image2video.errors import InputError
from image2video.search import SearchConfig, search
from image2video.training import load_weights, make_accelerator

EXAMPLE = (
    "image2video search --model resnet18 --data folder:flowers --weights bare.safetensors --selection fixed_weights "
    "--out runs/search"
)

_RENAME = {"T": "frames"}


def add_options(parser: ArgumentParser) -> None:
    """The command's options."""
    add_fields(parser, DataOptions)
    add_fields(parser, BackboneOptions)
    add_fields(parser, SearchConfig, rename=_RENAME, skip=("precision", "seed", "device"))
    add_fields(parser, MachineOptions)
    add_fields(parser, OutputOptions, defaults={"out": "image2video-search"})


def run(options: Namespace) -> None:
    """Searches, and prints the genotype and the folder of the results."""
    config = collect(SearchConfig, options, rename=_RENAME, device="auto")  # the accelerator below decides
    data_options, backbone = collect(DataOptions, options), collect(BackboneOptions, options)
    output = collect(OutputOptions, options)
    fixed = config.selection == "fixed_weights"
    if fixed and backbone.weights is None and not backbone.pretrained:
        raise InputError("--selection fixed_weights ranks chains for a trained network; give --weights FILE")
    accelerator = make_accelerator(options.device)
    data = load_matching_data(data_options, backbone, config.seed)
    if fixed and data.holdout is None:
        raise InputError("--selection fixed_weights needs images the network was not trained on: --holdout above 0")
    if fixed and backbone.weights is not None:
        warn_of_seen_images(backbone.weights, data_options, config.seed)
    model, _ = bare_model(backbone, data, config.seed)
    if backbone.weights is not None:
        load_weights(model, backbone.weights)
    with progress_bars(show=accelerator.is_main_process) as progress:
        result = search(
            model,
            data.train,
            config,
            validation=data.holdout if fixed else None,
            out=output.out,
            resume=output.resume,
            overwrite=output.overwrite,
            accelerator=accelerator,
            progress=progress,
            provenance={"dataset": data.short_name, "backbone": backbone.model},
            settings=record(options),
        )
    if not accelerator.is_main_process:
        return
    console = Console()
    if result.ranking is not None:
        console.print(ranking_table(result.ranking))
        console.print(result.ranking.sentence(), highlight=False)
    score = result.state.score
    if score is not None:
        accuracy, error = 100 * score["accuracy"], 100 * score["accuracy_error"]
        console.print(f"the discretised cell: {accuracy:.2f} ± {error:.2f} % of {score['images']} held-out images")
    console.print(f"genotype: {result.genotype}", soft_wrap=True, highlight=False)
    console.print(f"results: {Path(output.out).resolve()}", soft_wrap=True, highlight=False)
