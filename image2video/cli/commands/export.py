"""The options of `image2video export`."""

from __future__ import annotations

from dataclasses import dataclass

from jsonargparse import ArgumentParser

from image2video.cli.arguments import add_fields
from image2video.cli.options import BackboneOptions, DataOptions, MachineOptions, WrapOptions

NO_DATA = "none"


EXAMPLE = "image2video export runs/wrapped --format onnx --out wrapped.onnx"


@dataclass(frozen=True)
class ExportOptions:
    """What is written, and where.

    Attributes:
        format: pt2 (torch.export), onnx, onnx-legacy (torch's older exporter), aoti (AOTInductor), torchscript, int8
            (static, with ranges from training images), or a registered one
        out: the file (default: image2video-export with the format's suffix)
        data: images to compare the file with the network on, and to take ranges from, as in the other commands; none
            for random ones (default: the data of the weights' run, else none)
        batch_size: images per call of the file (default: any number)
        dtype: of the weights and of what is computed, float32 or bf16; images and outputs are float32
        opset: of ONNX (default: the exporter's own)
        tolerance: the largest difference that is no fault, as a share of the largest output (default: 1e-05; bf16 and
            int8 more)
        calibration_images: how many training images int8 takes its ranges from
        overwrite: replace the file
    """

    format: str = "pt2"
    out: str | None = None
    data: str = NO_DATA
    batch_size: int | None = None
    dtype: str = "float32"
    opset: int | None = None
    tolerance: float | None = None
    calibration_images: int = 64
    overwrite: bool = False


def add_options(parser: ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "weights",
        nargs="?",
        type=str | None,
        default=None,
        help="the folder of a run or of save_pretrained, or a file of weights with --model",
    )
    add_fields(parser, ExportOptions)
    add_fields(parser, BackboneOptions, skip=("weights", "head"))
    add_fields(parser, WrapOptions)
    add_fields(parser, DataOptions, skip=("data", "flip", "augment"))
    add_fields(parser, MachineOptions, skip=("device",))
