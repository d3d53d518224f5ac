"""`image2video search`."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from image2video.cli.arguments import add_options as add_fields
from image2video.cli.arguments import collect, write_command
from image2video.cli.models import bare_model, load_matching_data
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
        )
    if not accelerator.is_main_process:
        return
    write_command(Path(output.out), options)
    console = Console()
    if result.ranking is not None:
        console.print(ranking_table(result.ranking))
    console.print(f"genotype: {result.genotype}", soft_wrap=True, highlight=False)
    console.print(f"results: {Path(output.out).resolve()}", soft_wrap=True, highlight=False)
