"""The options of `image2video spaces`."""

from __future__ import annotations

from dataclasses import dataclass

from jsonargparse import ArgumentParser

from image2video.cli.arguments import add_fields

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
