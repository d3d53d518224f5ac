"""The options of `image2video reproduce`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jsonargparse import ArgumentParser

from image2video.cli.arguments import add_fields
from image2video.reproduce.names import experiments

EXAMPLE = "image2video reproduce table5 --scale smoke --out runs/paper"


@dataclass(frozen=True)
class ReproduceOptions:
    """Which table, at which size.

    Attributes:
        scale: smoke (digits, seconds), cpu (a small network, hours in all), converged (trained networks on two cores, a
            day in all), gpu, paper (as the paper states it)
        data: where data sets are, as cifar10=npz:cifar10.npz,imagenet=folder:/data/imagenet (default: data/, as
            torchvision downloads them)
        weights: where trained weights are, as tf_efficientnet_lite0=lite0.safetensors (default: data/, or the Python
            package that brings them)
        out: folder of all results; tables share their runs
        max_minutes: begin no further run after so many minutes; the same command goes on
        retry: try failed runs again
        arms: do only the runs of these arms, as bare,replica, and of those whose weights they need
        report_only: run nothing, render what there is
        check: train nothing; build every arm without data or memory, and print parameters, multiply-accumulates,
            machines and hours
        rehearse: train every arm for two steps on generated miniatures of its data, test it, and keep nothing
        rows: check, rehearse or run only rows whose name holds this regular expression; the table shows all
        device: auto, cpu, cuda or mps

    """

    scale: str = "smoke"
    data: str | None = None
    weights: str | None = None
    out: str = "image2video-paper"
    max_minutes: float | None = None
    retry: bool = False
    arms: str | None = None
    report_only: bool = False
    check: bool = False
    rehearse: bool = False
    rows: str | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"


def add_options(parser: ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "table", type=str, nargs="?", help=f"one of {', '.join(experiments())}, or a .yaml file of the same form"
    )
    add_fields(parser, ReproduceOptions)
