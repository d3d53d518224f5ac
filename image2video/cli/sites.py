"""`image2video sites`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from image2video.cli.arguments import add_fields, collect
from image2video.inject import plan
from image2video.wrap.builders import Builder

EXAMPLE = "image2video sites resnet50 --fusion gsf"


@dataclass(frozen=True)
class SitesOptions:
    """Where fusions would sit.

    Attributes:
        fusion: how frames mix; a name from `fusion_names()`
        sites: regular expression on module names (default: all that the rule finds)
        input_size: channels, height and width as [C, H, W] (default: the model's own)
        model_kwargs: further arguments of the model as JSON, such as {"img_size": 32}
    """

    fusion: str = "gsf"
    sites: str | None = None
    input_size: tuple[int, int, int] | None = None
    model_kwargs: dict[str, Any] = field(default_factory=dict)


def add_options(parser: ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("model", type=str, help="timm model, such as resnet50; another builder's as BUILDER:NAME")
    add_fields(parser, SitesOptions)


def run(options: Namespace) -> None:
    """Prints the plan."""
    chosen = collect(SitesOptions, options)
    name = options.model if ":" in options.model else f"timm:{options.model}"
    backbone = Builder(name, chosen.model_kwargs).build()
    print(plan(backbone, fusion=chosen.fusion, sites=chosen.sites, input_size=chosen.input_size))
