"""Which places of a clip the outputs of a backbone have passed: traced, where neither plan nor shapes tell."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from image2video.errors import UnsupportedError
from image2video.inject.api import Injection
from image2video.inject.door import Door, Enter
from image2video.trace.cuts import behind
from image2video.trace.graph import Graph, has
from image2video.trace.trace import trace_forward


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
