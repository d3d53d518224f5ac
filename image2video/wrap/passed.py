"""Which places of a clip the intermediates of a backbone have passed: traced, since their shapes do not tell."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from image2video.errors import UnsupportedError
from image2video.inject.api import Injection
from image2video.trace.cuts import behind
from image2video.trace.graph import Graph, has
from image2video.trace.trace import trace_forward


class Intermediates(nn.Module):
    """An injected backbone's `forward_intermediates` on single frames, which its hooks leave as they are."""

    def __init__(self, backbone: nn.Module, fusion: Injection, options: dict[str, Any]) -> None:
        super().__init__()
        self.backbone = backbone
        self.fusion = fusion
        self.options = options
        self.training = backbone.training

    def forward(self, images: Tensor) -> Any:
        """Return what the method returns for images that are one frame each."""
        with self.fusion.frames(1):
            method: Any = self.backbone.forward_intermediates
            return method(images, **self.options)


def passed_places(backbone: nn.Module, fusion: Injection, images: Tensor, options: dict[str, Any]) -> dict[str, int]:
    """Count for every tensor of `forward_intermediates`, by its path, the clip sites that it has passed.

    Args:
        backbone: an injected backbone with several clip sites.
        fusion: the injection that hooked it.
        images: `(B, C, H, W)`, of which the size, type and device count.
        options: further arguments of the method.

    Raises:
        UnsupportedError: within a compiled or exported graph.
        InputError: a forward that fails.
    """
    if torch.compiler.is_compiling():
        raise UnsupportedError(
            f"which places the intermediates of {type(backbone).__name__} have passed is traced, which cannot be done "
            "within a graph: call the method uncompiled, or compile the backbone's features_only form"
        )
    graph = Graph(trace_forward(Intermediates(backbone, fusion, options), images[:1].detach(), as_is=True))
    regions = []
    for site in fusion.plan.clip_sites:
        calls = [call for call in graph.calls if call.name == f"backbone.{site.module}"]
        # `stop_early` may leave a place out.
        regions += [behind(graph, call.inputs[site.index], call) for call in calls]
    return {path: sum(has(region, value) for region in regions) for path, value in graph.trace.outputs}
