"""`image2video augment`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.table import Table
from torch import nn

from image2video.cli.arguments import add_fields, collect
from image2video.cli.models import build_model, load_matching_data, settings
from image2video.cli.options import BackboneOptions, DataOptions, MachineOptions, OutputOptions, WrapOptions
from image2video.cli.progress import progress_bars
from image2video.data import Augmentation
from image2video.errors import InputError
from image2video.training import PolicySearchResult, TrainConfig, make_accelerator, search_augmentation

EXAMPLE = (
    "image2video augment --family randaugment --max-minutes 5 --model cifar_resnet8 --data digits --out runs/augment"
)

_LEFT_OUT = ("genotype", "frame_source", "schedule")


@dataclass(frozen=True)
class AugmentOptions:
    """Which policies are tried, and for how long.

    Attributes:
        family: autoaugment, randaugment, trivialaugment, uniformaugment or clips
        max_minutes: what the search may take, over all resumed parts
        grid: policies to try, as [randaugment:ops=1,randaugment:ops=2] with quotes (default: those of the family)
        use: images augments the training images of the bare network; frames makes the frames of a wrapped one
        reference: train without a policy first, for comparison; with --use images only

    """

    family: str = "randaugment"
    max_minutes: float = 5.0
    grid: list[str] | None = None
    use: Literal["images", "frames"] = "images"
    reference: bool = True


def add_options(parser: ArgumentParser) -> None:
    """The command's options."""
    add_fields(parser, AugmentOptions)
    add_fields(parser, DataOptions, skip=("augment",))
    add_fields(parser, BackboneOptions)
    add_fields(parser, WrapOptions, skip=_LEFT_OUT)
    add_fields(parser, TrainConfig, skip=("seed", "device"), defaults={"epochs": 3})
    add_fields(parser, MachineOptions)
    add_fields(parser, OutputOptions, defaults={"out": "image2video-augment"})


def run(options: Namespace) -> None:
    """Tries the policies, and prints their scores, the best one and the command that trains with it."""
    what, config = collect(AugmentOptions, options), collect(TrainConfig, options)
    data_options, output = collect(DataOptions, options), collect(OutputOptions, options)
    backbone, wrap = collect(BackboneOptions, options), collect(WrapOptions, options)
    if what.use == "images" and asdict(wrap) != asdict(WrapOptions()):
        raise InputError("--use images trains the bare network, which the options of wrapping do not fit; --use frames")
    accelerator = make_accelerator(config.device)
    data = load_matching_data(data_options, backbone, config.seed)

    def build(policy: Augmentation | None) -> nn.Module:
        source = None if what.use == "images" else str(policy)
        chosen = replace(wrap, genotype="none" if source is None else None, frame_source=source)
        return build_model(backbone, chosen, data, config.seed)

    with progress_bars(show=accelerator.is_main_process) as progress:
        result = search_augmentation(
            what.family,
            data,
            build,
            config,
            minutes=what.max_minutes,
            grid=what.grid,
            augment_images=what.use == "images",
            reference=what.reference,
            seed=config.seed,
            out=output.out,
            resume=output.resume,
            overwrite=output.overwrite,
            accelerator=accelerator,
            progress=progress,
            settings=settings(data_options, backbone, wrap),
        )
    console = Console()
    console.print(scores_table(result))
    tried, minutes = len(result.scores), f"{result.seconds / 60:.1f} of {result.minutes:g} minutes"
    console.print(f"{tried} of {tried + len(result.not_reached)} policies tried in {minutes}", highlight=False)
    option = "--augment" if what.use == "images" else "--frame-source"
    console.print(f'best: image2video train {option} "{result.best}"', soft_wrap=True, highlight=False)
    console.print(f"results: {Path(output.out).resolve()}", soft_wrap=True, highlight=False)


def scores_table(result: PolicySearchResult) -> Table:
    """One line per policy, best first, and the reference; one standard error beside each accuracy."""
    images = result.scores[0].images
    table = Table(title=f"policies of {result.family}, scored on {images} held-out images", title_justify="left")
    gains = () if result.reference is None else ("gain over none",)
    for name in ("policy", "top-1 %", *gains, "loss", "seconds"):
        table.add_column(name, justify="left" if name == "policy" else "right", overflow="fold")
    for score in (*result.scores, *([] if result.reference is None else [result.reference])):
        gain = None if score is result.reference else result.gain(score)
        shown = "–" if gain is None else f"{100 * gain[0]:+.2f} ± {100 * gain[1]:.2f}"
        columns = [shown] if gains else []
        accuracy = f"{100 * score.accuracy:.2f} ± {100 * score.error:.2f}"
        table.add_row(score.policy, accuracy, *columns, f"{score.loss:.4f}", f"{score.seconds:.1f}")
    return table
