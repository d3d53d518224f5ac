"""The network behind the cell: a clip's frames through the fused backbone, and their predictions."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from image2video.clip.image_to_video import clip_to_frames
from image2video.fusion.config import FusionConfig
from image2video.fusion.registry import resolve_fusion
from image2video.inject import Injection, inject_
from image2video.inject.clip_hook import PlaceMaker
from image2video.inject.clip_site import ClipSite
from image2video.search.score.task import ClassificationTask, Task, Unwarp


class FrameNetwork(nn.Module):
    """A backbone whose frames mix at its sites, fed with a clip instead of an image.

    `(B, T, C, H, W)` -> what the backbone returns for the frames `(B·T, C, H, W)`; `predictions` makes those of images.
    Where the clip begins inside of the backbone, images `(B, C, H, W)` go in instead.

    Args:
        backbone: the backbone with its hooks, or a bare one where `fusion` is None (frames never mix).
        fusion: the injection that holds the fusions, and moves maps at the places of its plan.
    """

    def __init__(self, backbone: nn.Module, fusion: Injection | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.fusion = fusion

    @property
    def clip_sites(self) -> tuple[ClipSite, ...]:
        """The places inside of the backbone where maps are moved."""
        return () if self.fusion is None else self.fusion._plan.clip_sites

    def forward(self, clip: Tensor, maker: PlaceMaker | None = None) -> Any:
        """The outputs of a clip's frames; `maker` makes those at places inside of the backbone."""
        if self.fusion is None:
            return self.backbone(clip_to_frames(clip))
        if self.fusion._plan.clip_site is not None:
            assert maker is not None, "the clip begins inside of the backbone"
            with self.fusion._frames(maker.counts[-1], maker=maker):
                return self.backbone(clip)
        # Behind the image there may be fewer rows than frames: those that are the same until a later place.
        T = clip.shape[1] if maker is None else maker.counts[-1]
        with self.fusion._frames(T, maker=maker):
            return self.backbone(clip_to_frames(clip))


def predictions(network: nn.Module, clip: Tensor, task: Task, unwarp: Unwarp, maker: PlaceMaker | None = None) -> Any:
    """The task's predictions of the images behind a clip `(B, T, C, H, W)`: `(B, …)`, or tensors in containers.

    Args:
        network: a `FrameNetwork`, bare or prepared by accelerate.
        clip: the frames of every image; the images `(B, C, H, W)` where the clip begins inside of the network.
        task: checks the outputs and averages them over the frames.
        unwarp: the way back through what made the clip, `(B·T, K, h, w)` -> `(B, K, h, w)`; see `Task.predict`.
        maker: what makes frames at places inside of the network.

    Raises what `task.check` raises.
    """
    T = clip.shape[1] if maker is None else maker.counts[-1]
    outputs = network(clip) if maker is None else network(clip, maker)
    task.check(outputs, clip.shape[0] * T)
    return task.predict(outputs, T, unwarp)


@contextmanager
def in_mode(network: nn.Module, *, training: bool) -> Iterator[None]:
    """Put a network into training or evaluation mode; afterwards every module has its own mode again."""
    modes = [(module, module.training) for module in network.modules()]
    network.train(training)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def device_of(network: nn.Module) -> torch.device:
    """Where a network's parameters or buffers are; the CPU where it has none."""
    tensors = [*network.parameters(), *network.buffers()]
    return tensors[0].device if tensors else torch.device("cpu")


def macs_per_frame(network: nn.Module, image: Tensor) -> float:
    """Multiply-accumulates of one frame, half of what torch counts as floating-point operations.

    `image` is `(1, C, H, W)`. Convolutions, matrix products and attention count; additions and norms do not.
    """
    with FlopCounterMode(display=False) as counter:
        network(image)
    return counter.get_total_flops() / 2


def build_network(
    backbone: nn.Module,
    fusion: str | FusionConfig,
    *,
    residual: bool,
    input_size: tuple[int, int, int],
    task: Task | None = None,
    places: Sequence[str] | None = None,
) -> FrameNetwork:
    """A `FrameNetwork` around a copy of `backbone`; the backbone itself stays as it is.

    `input_size` is (C, H, W) of the images that the search will see. `task` says which part of the backbone mixes its
    frames (default: all of it may). `places` are those where frames are made and moved; None is the image alone. Raises
    what `Task.plan`, `Task.plan_at` and `inject_` raise.
    """
    own, task = copy.deepcopy(backbone), task or ClassificationTask()
    config = resolve_fusion(fusion)
    if places is not None:
        part, sites = task.plan_at(own, config, input_size, places)
    elif config.name == "none":
        return FrameNetwork(own, None)
    else:
        part, sites = task.plan(own, config, input_size)
    return FrameNetwork(own, inject_(part, sites, residual=residual))
