"""The options of `image2video presets`."""

from __future__ import annotations

from jsonargparse import ArgumentParser

EXAMPLE = "image2video presets cifar10"


def add_options(parser: ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "name", type=str, nargs="?", help="print this preset's file, its chain and how it was found (default: list all)"
    )
