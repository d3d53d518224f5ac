"""`image2video presets`."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from image2video.cli.listings import presets_table
from image2video.clip.genotype import PRESET_PREFIX, Genotype

EXAMPLE = "image2video presets cifar10"


def add_options(parser: ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "name", type=str, nargs="?", help="print this preset's file, its chain and how it was found (default: list all)"
    )


def run(options: Namespace) -> None:
    """Prints the table of all presets, or the JSON of one."""
    if options.name is not None:
        print(Genotype.preset(options.name.removeprefix(PRESET_PREFIX)).to_json(), end="")
        return
    console = Console()
    console.print(presets_table({name: Genotype.preset(name) for name in Genotype.presets()}))
    console.print(
        "A preset is what one search found at the scale stated, not a recommendation. Use it as --genotype "
        f"{PRESET_PREFIX}NAME, or Genotype.preset(NAME).",
        highlight=False,
    )
