"""The options of `image2video train`."""

from __future__ import annotations

from dataclasses import dataclass

from jsonargparse import ArgumentParser

from image2video.cli.arguments import add_fields
from image2video.cli.options import BackboneOptions, DataOptions, MachineOptions, OutputOptions, WrapOptions
from image2video.settings.training import TrainConfig


@dataclass(frozen=True)
class FieldOptions:
    """What is drawn after training.

    Attributes:
        fields: measure the trained wrapped network's receptive fields and draw them (default: for images of at most 64
            pixels a side)
    """

    fields: bool | None = None


EXAMPLE = (
    "image2video train --model resnet18 --data folder:flowers --genotype genotype.json --weights bare.safetensors "
    "--epochs 10 --lr 0.01 --out runs/flowers"
)


def add_options(parser: ArgumentParser) -> None:
    """The command's options."""
    add_fields(parser, DataOptions, BackboneOptions, WrapOptions)
    add_fields(parser, TrainConfig, skip=("seed", "device"))
    add_fields(parser, FieldOptions, MachineOptions)
    add_fields(parser, OutputOptions, defaults={"out": "image2video-train"})
