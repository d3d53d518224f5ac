"""The options of `image2video demo`."""

from __future__ import annotations

from dataclasses import dataclass

from jsonargparse import ArgumentParser

from image2video.cli.arguments import add_fields
from image2video.experiments import DemoConfig

EXAMPLE = "image2video demo --seeds 1 --out demo"


@dataclass(frozen=True)
class StoryOptions:
    """What comes before the comparison.

    Attributes:
        deployments: put a trained network into four deployments first and assess it in each; images in memory alone
        deployment_epochs: epochs of the networks of the deployments
        deployment_tune_epochs: epochs of fine-tuning on the labelled images of a deployment
        deployment_candidates: how many chains and frames are looked at in a deployment
    """

    deployments: bool | None = None
    deployment_epochs: int = 12
    deployment_tune_epochs: int = 10
    deployment_candidates: int = 32


def add_options(parser: ArgumentParser) -> None:
    """The command's options."""
    add_fields(parser, StoryOptions, DemoConfig)
