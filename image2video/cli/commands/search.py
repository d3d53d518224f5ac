"""The options of `image2video search`."""

from __future__ import annotations

from dataclasses import dataclass

from jsonargparse import ArgumentParser

from image2video.cli.arguments import add_fields, add_grouped
from image2video.cli.options import BackboneOptions, DataOptions, MachineOptions, OutputOptions, TaskOptions
from image2video.settings.search import SearchConfig

RENAME = {"T": "frames"}


@dataclass(frozen=True)
class CompareOptions:
    """Which final networks are trained after the search, and for how long.

    Attributes:
        compare: candidates that get a final network beside the found genotype and the bare network, separated by
            commas: random:5 (five draws), replica, averaging (the found clip without fusion), frozen, argmax,
            perturbation, one_shot (each a search of its own, :COUNT for several seeds), fixed_weights, a genotype as
            "rotate(10)", FILE.json or preset:NAME; none for no comparison (default: random:3,replica; none where
            selection is fixed_weights or random, clip_at is given, or a budget ends the search)
        final_epochs: epochs of every final network; the bare network gets T times as many as well. The default costs
            about twice what the search does and gives a first answer; judge by runs that have converged (default: a
            tenth of the epochs of the search)
        final_seeds: seeds of every final network; fewer than 3 decide little
        final_lr: peak learning rate of the final networks (default: 0.1, and 0.01 from trained weights)
    """

    compare: str | None = None
    final_epochs: int | None = None
    final_seeds: int = 3
    final_lr: float | None = None


EXAMPLE = (
    "image2video search --model resnet18 --data folder:flowers --weights bare.safetensors --selection fixed_weights "
    "--compare random:5,replica --out runs/search"
)


_GROUPS = {
    "the search": (
        *("space", "selection", "T", "fusion", "residual", "epochs", "warmup_epochs", "max_images", "max_minutes"),
        *("validation_share", "validation_images"),
    ),
    "choosing from the cell": (
        *("criterion", "tune_epochs", "orders", "stop_early", "renormalise", "score_statistics", "score_batch_size"),
        "paper",
    ),
    "where in the network, and at what cost": ("clip_at", "max_cost"),
    "ranking chains (fixed_weights, one_shot), choosing frames (greedy_frames)": (
        *("candidates", "first_images"),
        *("choose_frames", "choose_schedule", "choose_padding", "choose_aggregate"),
    ),
    "the cell's weights τ and magnitudes": (
        *("tau_lr", "tau_betas", "tau_weight_decay", "second_order", "relaxation", "temperature", "temperature_min"),
        *("learn_magnitudes", "magnitudes_per", "magnitude_lr", "magnitude_bound"),
    ),
    "the network's weights": ("batch_size", "accumulate", "lr", "lr_min", "momentum", "weight_decay", "grad_clip"),
}


def add_options(parser: ArgumentParser) -> None:
    """The command's options."""
    add_fields(parser.add_argument_group("the images"), DataOptions)
    add_fields(parser.add_argument_group("the network"), BackboneOptions)
    add_fields(parser.add_argument_group("both from another library's config"), TaskOptions)
    skip = ("precision", "seed", "device")
    add_grouped(parser, SearchConfig, {**_GROUPS, "how it computes": None}, rename=RENAME, skip=skip)
    add_fields(parser.add_argument_group("is it better than random?"), CompareOptions)
    last = parser.add_argument_group("random numbers, device, results")
    add_fields(last, MachineOptions)
    add_fields(last, OutputOptions, defaults={"out": "image2video-search"})
