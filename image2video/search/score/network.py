"""The network behind the cell: a clip's frames through the fused backbone, and their predictions."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from image2video.clip.image_to_video import clip_to_frames
from image2video.fusion.config import FusionConfig
from image2video.fusion.registry import resolve_fusion
from image2video.inject import Injection, inject_
from image2video.search.score.task import ClassificationTask, Task, Unwarp


class FrameNetwork(nn.Module):
    """A backbone whose frames mix at its sites, fed with a clip instead of an image.

    `(B, T, C, H, W)` -> what the backbone returns for the frames `(B·T, C, H, W)`; `predictions` makes those of images.

    Args:
        backbone: the backbone with its hooks, or a bare one where `fusion` is None (frames never mix).
        fusion: the injection that holds the fusions.
    """

    def __init__(self, backbone: nn.Module, fusion: Injection | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.fusion = fusion

    def forward(self, clip: Tensor) -> Any:
        """The outputs of a clip's frames."""
        frames = clip_to_frames(clip)
        if self.fusion is None:
            return self.backbone(frames)
        with self.fusion.frames(clip.shape[1]):
            return self.backbone(frames)


def predictions(network: nn.Module, clip: Tensor, task: Task, unwarp: Unwarp) -> Any:
    """The task's predictions of the images behind a clip `(B, T, C, H, W)`: `(B, …)`, or tensors in containers.

    Args:
        network: a `FrameNetwork`, bare or prepared by accelerate.
        clip: the frames of every image.
        task: checks the outputs and averages them over the frames.
        unwarp: the way back through what made the clip, `(B·T, K, h, w)` -> `(B, K, h, w)`; see `Task.predict`.

    Raises what `task.check` raises.
    """
    outputs = network(clip)
    task.check(outputs, clip.shape[0] * clip.shape[1])
    return task.predict(outputs, clip.shape[1], unwarp)


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
) -> FrameNetwork:
    """A `FrameNetwork` around a copy of `backbone`; the backbone itself stays as it is.

    `input_size` is (C, H, W) of the images that the search will see. `task` says which part of the backbone mixes its
    frames (default: all of it may). Raises what `Task.plan` and `inject_` raise.
    """
    own = copy.deepcopy(backbone)
    config = resolve_fusion(fusion)
    if config.name == "none":
        return FrameNetwork(own, None)
    part, sites = (task or ClassificationTask()).plan(own, config, input_size)
    return FrameNetwork(own, inject_(part, sites, residual=residual))
