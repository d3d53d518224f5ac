"""Layouts of outputs that no plan knows: the backbone is traced as it runs, at the size of the images that came."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from image2video.errors import Image2VideoError, UnsupportedError
from image2video.inject.api import Injection
from image2video.inject.plan import OutputLayout
from image2video.inject.planning import output_layouts


class OneFrame(nn.Module):
    """An injected backbone on single frames, which its fusions leave as they are."""

    def __init__(self, backbone: nn.Module, fusion: Injection) -> None:
        super().__init__()
        self.backbone = backbone
        self.fusion = fusion
        self.training = backbone.training

    def forward(self, images: Tensor) -> Any:
        """Return what the backbone returns for images that are one frame each."""
        with self.fusion.frames(1):
            return self.backbone(images)


def late_layouts(backbone: nn.Module, fusion: Injection, frames: Tensor) -> tuple[OutputLayout, ...]:
    """Trace the outputs of an injected backbone, in the mode that it is in.

    Args:
        backbone: the backbone.
        fusion: the injection that hooked it.
        frames: `(B, C, H, W)`, of which the size, type and device count.

    Returns:
        The layouts of its outputs.

    Raises:
        UnsupportedError: within a compiled or exported graph, or a backbone that cannot be traced.
    """
    if torch.compiler.is_compiling():
        raise UnsupportedError(
            f"the layouts of the outputs of {type(backbone).__name__} are not known, and it cannot be traced within a "
            "graph: call the model once before compiling or exporting it, or pass input_size=(C, H, W)"
        )
    try:
        return output_layouts(OneFrame(backbone, fusion), frames[:1].detach())
    except Image2VideoError as error:
        raise UnsupportedError(
            f"the layouts of the outputs of {type(backbone).__name__} are not known, and tracing it failed ({error}); "
            'set backbone.output_fmt = "NCHW" (or "NHWC") for maps, or use aggregate="mean"'
        ) from error
