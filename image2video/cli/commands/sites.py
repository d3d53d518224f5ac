"""The options of `image2video sites`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jsonargparse import ArgumentParser

from image2video.cli.arguments import add_fields

EXAMPLE = "image2video sites resnet50 --fusion gsf"


@dataclass(frozen=True)
class SitesOptions:
    """Where fusions would sit, and where a clip may begin.

    Attributes:
        fusion: how frames mix; a name from `fusion_names()`
        sites: regular expression on module names (default: all that the rule finds)
        clip_at: module at whose input the clip begins, one that --clip-sites lists (default: the image); several
            places with commas between them: it begins at the first, and its frames are moved once more at the others
        clip_sites: list every place where a clip may begin, with its cost
        input_size: channels, height and width as [C, H, W] (default: the model's own)
        model_kwargs: further arguments of the model as JSON, such as {"img_size": 32}
    """

    fusion: str = "gsf"
    sites: str | None = None
    clip_at: str | None = None
    clip_sites: bool = False
    input_size: tuple[int, int, int] | None = None
    model_kwargs: dict[str, Any] = field(default_factory=dict)


def add_options(parser: ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("model", type=str, help="timm model, such as resnet50; another builder's as BUILDER:NAME")
    add_fields(parser, SitesOptions)
