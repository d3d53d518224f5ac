"""`image2video spaces`."""

from __future__ import annotations

from dataclasses import dataclass

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from image2video.cli.arguments import add_fields, collect
from image2video.cli.listings import describe_space, ops_table, spaces_table
from image2video.search import get_space, space_names

EXAMPLE = "image2video spaces --ops"


@dataclass(frozen=True)
class SpacesOptions:
    """What is listed.

    Attributes:
        ops: list the ops that a space may be made of
    """

    ops: bool = False


def add_options(parser: ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "space",
        type=str,
        nargs="?",
        help="a registered space, or a .yaml or .json file that holds one: check and print it (default: list all)",
    )
    add_fields(parser, SpacesOptions)


def run(options: Namespace) -> None:
    """Prints the spaces, or one of them, and the ops."""
    console = Console()
    if options.space is not None:
        console.print(describe_space(get_space(options.space)), highlight=False)
    elif not options.ops:
        console.print(spaces_table([get_space(name) for name in space_names()]))
        console.print("image2video spaces NAME lists a space's candidates, --ops what a space may be made of.")
    if collect(SpacesOptions, options).ops:
        console.print(ops_table())
