"""The options of `image2video rf`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jsonargparse import ArgumentParser

from image2video.cli.arguments import add_fields, dashed
from image2video.cli.options import MachineOptions
from image2video.clip.named import DEFAULT_GENOTYPE
from image2video.errors import InputError


@dataclass(frozen=True)
class RfOptions:
    """Which network's fields are measured, and on which images.

    Attributes:
        model: timm model, such as resnet50; another builder's model as BUILDER:NAME
        model_kwargs: further arguments of the model as JSON, such as {"num_classes": 10}
        weights: trained weights: .safetensors or a torch file of the bare network, or the folder of a run or of
            save_pretrained; none for random ones
        pretrained: load timm's weights for this model
        genotype: text such as "translate_x(0.06) > rotate(10)", "identity | flip_x" or, of several places of the
            network, "image: scale(1.1) | layer3: rotate(10)", a .json file or preset:NAME
        fusion: how frames mix; a name from `fusion_names()`
        frames: frames of the clip, T (default: as the genotype's file was found with, else 3; all of a frame set)
        schedule: power of each frame: from_zero, ramp, centred or mirror (default: likewise, else centred)
        clip_at: module at whose input the clip begins, one that `image2video sites --clip-sites` lists, or image
            (default: as the genotype's file was found with, else image)
        size: pixels per side of the images (default: those that the weights' run had, else the model's own)
        images: a folder of image files, or random for noise
        count: how many images
        batch_size: images per forward pass
        layer: module whose features are a frame's (default: the last that is a map or has tokens)
        frame: of which frame features are shown (default: the one that is the image itself, or moves least)
        out: folder of the results
        overwrite: replace the run in this folder
    """

    model: str = "resnet50"
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    weights: str = "none"
    pretrained: bool = False
    genotype: str = DEFAULT_GENOTYPE
    fusion: str = "gsf"
    frames: int | None = None
    schedule: str | None = None
    clip_at: str | None = None
    size: int | None = None
    images: str = "random"
    count: int = 16
    batch_size: int = 4
    layer: str | None = None
    frame: int | None = None
    out: str = "image2video-rf"
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name, least in (("frames", 1), ("count", 1), ("batch_size", 1), ("frame", 0), ("size", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{dashed(name)} must be at least {least}, got {value}")
        if self.pretrained and self.weights != "none":
            raise InputError("--pretrained and --weights both name weights; give one of the two")


EXAMPLE = (
    'image2video rf --model resnet50 --genotype "translate_x(0.06) > rotate(10)" --fusion gsf --size 224 '
    "--images random --out runs/rf"
)


def add_options(parser: ArgumentParser) -> None:
    """The command's options."""
    add_fields(parser, RfOptions, MachineOptions)
