"""Which places of a clip the outputs of a backbone have passed: traced, where neither plan nor shapes tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from image2video.errors import UnsupportedError
from image2video.inject.api import Injection
from image2video.trace.cuts import behind
from image2video.trace.graph import Graph, has
from image2video.trace.trace import trace_forward

Enter = Callable[[nn.Module, Tensor], Any]
"""Calls a backbone, which a trace copies, or one of its methods, with images and with all its further arguments."""


def entering(options: Mapping[str, Any], method: str = "__call__") -> Enter:
    """Return what calls a method of a backbone with images and these options."""
    return lambda backbone, images: getattr(backbone, method)(images, **options)


class Door(nn.Module):
    """An injected backbone that is called, or entered by a method, on single frames, which its hooks leave as they are.

    Args:
        backbone: the backbone.
        fusion: the injection that hooked it.
        enter: calls the backbone or its method.
    """

    def __init__(self, backbone: nn.Module, fusion: Injection, enter: Enter) -> None:
        super().__init__()
        self.backbone = backbone
        self.fusion = fusion
        self.enter = enter
        self.training = backbone.training

    def forward(self, images: Tensor) -> Any:
        """Return what the backbone or its method returns for images that are one frame each."""
        with self.fusion.frames(1):
            return self.enter(self.backbone, images)


def passed_places(backbone: nn.Module, fusion: Injection, images: Tensor, enter: Enter) -> dict[str, int]:
    """Count for every tensor that a call returns, by its path, the clip sites that it has passed.

    Args:
        backbone: an injected backbone with several clip sites, in the mode that it is in.
        fusion: the injection that hooked it.
        images: `(B, C, H, W)`, of which the size, type and device count.
        enter: calls the backbone or its method.

    Raises:
        UnsupportedError: within a compiled or exported graph.
        InputError: a forward that fails.
    """
    if torch.compiler.is_compiling():
        raise UnsupportedError(
            f"which places of the clip the outputs of {type(backbone).__name__} have passed is traced here, which "
            'cannot be done within a graph: call the model uncompiled, or use aggregate="mean" or "none"'
        )
    graph = Graph(trace_forward(Door(backbone, fusion, enter), images[:1].detach(), as_is=True))
    regions = []
    for site in fusion.plan.clip_sites:
        # `stop_early` of timm's intermediates may leave a place out.
        calls = [call for call in graph.calls if call.name == f"backbone.{site.module}"]
        regions += [behind(graph, call.inputs[site.index], call) for call in calls]
    return {path: sum(has(region, value) for region in regions) for path, value in graph.trace.outputs}
