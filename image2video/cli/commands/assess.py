"""The options of `image2video assess`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jsonargparse import ArgumentParser

from image2video.cli.arguments import add_fields
from image2video.cli.options import BackboneOptions, DataOptions, MachineOptions

EXAMPLE = (
    "image2video assess --model tf_efficientnet_lite0 --weights lite0.safetensors --data folder:flowers --max-cost 3 "
    "--out runs/assess"
)


@dataclass(frozen=True)
class AssessOptions:
    """What is looked for, and where the answer goes.

    Attributes:
        max_cost: the most that an image may cost, as a multiple of the network as it is
        minutes: about how long it may take; fewer candidates are looked at then (default: no limit)
        candidates: how many chains and frames to look at
        space: search space that they come from
        max_images: at most so many labelled images
        finetune: also fine-tune copies for N epochs on the images that choose: alone, averaged and fused, at equal
            compute
        part: which images: test, or holdout for a part of the training images
        out: folder of the results
        overwrite: replace the assessment in this folder
    """

    out: str
    max_cost: float = 3.0
    minutes: float | None = None
    candidates: int = 60
    space: str = "pose"
    max_images: int = 2000
    finetune: int = 0
    part: str = "test"
    overwrite: bool = False


@dataclass(frozen=True)
class SegmentorOptions:
    """A trained segmentor and labelled images that a mmsegmentation config describes.

    Attributes:
        task: in place of --data and --model, mmseg:CONFIG for the segmentor of a mmsegmentation config, with --weights
            CHECKPOINT, and mIoU as the measure
        task_images: which of the config's images: val or test (default: val, else test)
    """

    task: str | None = None
    task_images: Literal["val", "test"] | None = None


def add_options(parser: ArgumentParser) -> None:
    """The command's options."""
    add_fields(parser, DataOptions, BackboneOptions, MachineOptions, AssessOptions, SegmentorOptions)
