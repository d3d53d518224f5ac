"""What all runs of a comparison share: the images, the bare network, the clip and the recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from accelerate import Accelerator
from torch import nn

from image2video.clip.any_clip import Clip
from image2video.clip.options import ClipOptions
from image2video.data import DataSource
from image2video.experiments.arms import Arm
from image2video.runs.folders import torch_load
from image2video.runs.weights import load_state
from image2video.training import TrainConfig
from image2video.wrap.video_wrap import VideoWrap


class Recipe(Protocol):
    """Gives the training of one run."""

    def __call__(self, epochs: int, seed: int, *, finetune: bool) -> TrainConfig:
        """The settings of a training of `epochs`; `finetune` says that it begins with trained weights."""
        ...


@dataclass(frozen=True)
class Bench:
    """What all runs of a comparison share. The demo, `search --compare` and a table's row each make one.

    Attributes:
        data: the images; a run looks at the test set once, at its end.
        build: makes a bare network; called with the seed, under that seed.
        clip: the options of the clips, for arms that say nothing else.
        recipe: how a network is trained.
        epochs: of an arm from scratch.
        finetune_epochs: of an arm that starts from another.
        accelerator: of Hugging Face accelerate.
        trained: whether `build` gives trained weights.
        cost_batch: images of the batch with which time and memory are measured.
    """

    data: DataSource
    build: Callable[[int], nn.Module]
    clip: ClipOptions
    recipe: Recipe
    epochs: int
    finetune_epochs: int
    accelerator: Accelerator
    trained: bool = False
    cost_batch: int = 64

    def network(self, seed: int, start: Path | None = None) -> nn.Module:
        """A bare network on the device: equal weights for equal seeds, or those in the file `start`."""
        with seeded(seed):
            model = self.build(seed).to(self.accelerator.device)
        if start is not None:
            load_state(model, torch_load(start), str(start))
        return model

    def wrapped(self, model: nn.Module, arm: Arm, genotype: Clip | None, seed: int) -> nn.Module:
        """The network as the arm sees it, on the device."""
        return wrap_arm(
            model, arm, genotype, arm.clip(self.clip), seed=seed, trained=self.trained, input_size=self.data.input_size
        ).to(self.accelerator.device)


def wrap_arm(
    model: nn.Module,
    arm: Arm,
    genotype: Clip | None,
    clip: ClipOptions,
    *,
    seed: int,
    input_size: tuple[int, int, int],
    trained: bool = False,
    sites: str | None = None,
    clip_at: str | None = None,
) -> nn.Module:
    """The bare network as an arm sees it; without a fusion or a genotype it stays as it is.

    A fusion begins without effect on trained weights, which it must not spoil, and as published on fresh ones.
    """
    if arm.fusion is None or genotype is None:
        return model
    residual = trained or arm.start is not None
    with seeded(seed):
        return VideoWrap(
            model,
            arm.fusion,
            genotype=genotype,
            residual=residual,
            sites=sites,
            input_size=input_size,
            clip_at=clip_at,
            **clip.arguments(),
        )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from torch's generator of the CPU with this seed; afterwards it goes on where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
