"""`image2video spaces`."""

from __future__ import annotations

from jsonargparse import Namespace
from rich.console import Console

from image2video.cli.arguments import collect
from image2video.cli.commands.spaces import SpacesOptions
from image2video.cli.listings import describe_space, ops_table, spaces_table
from image2video.search import get_space, space_names


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
