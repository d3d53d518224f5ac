"""The options of `image2video evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jsonargparse import ArgumentParser

from image2video.cli.arguments import add_fields
from image2video.cli.options import BackboneOptions, DataOptions, MachineOptions, WrapOptions

EXAMPLE = (
    "image2video evaluate --model resnet18 --weights runs/bare/best.safetensors --genotype none --data folder:flowers"
)


@dataclass(frozen=True)
class EvaluateOptions:
    """What is evaluated, and how it is printed.

    Attributes:
        batch_size: images per batch (default: 256 frames, and 32 on a CPU, which more would slow down)
        part: test, holdout or train
        json: print JSON instead of a table
    """

    batch_size: int | None = None
    part: Literal["test", "holdout", "train"] = "test"
    json: bool = False


def add_options(parser: ArgumentParser) -> None:
    """The command's options."""
    add_fields(parser, DataOptions, BackboneOptions, WrapOptions, MachineOptions, EvaluateOptions)
