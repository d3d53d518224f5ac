"""Layouts of outputs that no plan knows: the backbone is traced as it runs, at the size of the images that came."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from image2video.errors import Image2VideoError, UnsupportedError
from image2video.inject.api import Injection
from image2video.inject.clip_reach import reach_of
from image2video.inject.door import Door, Enter
from image2video.inject.plan import OutputLayout
from image2video.inject.planning import output_layouts


class Late(NamedTuple):
    """What a trace of the running mode tells of a backbone's outputs.

    Args:
        outputs: their layouts.
        before: paths of those that are made before the clip begins inside of the backbone.
    """

    outputs: tuple[OutputLayout, ...]
    before: frozenset[str]


def late_layouts(backbone: nn.Module, fusion: Injection, frames: Tensor, enter: Enter) -> Late:
    """Trace the outputs of an injected backbone or of one of its methods, in the mode that it is in.

    Args:
        backbone: the backbone.
        fusion: the injection that hooked it.
        frames: `(B, C, H, W)`, of which the size, type and device count.
        enter: calls the backbone, whose keywords may ask for further outputs or another structure of them, or a method.

    Returns:
        What is known of its outputs.

    Raises:
        UnsupportedError: within a compiled or exported graph, or a backbone that cannot be traced.
    """
    if torch.compiler.is_compiling():
        raise UnsupportedError(
            f"the layouts of the outputs of {type(backbone).__name__} are not known, and it cannot be traced within a "
            "graph: call the model once before compiling or exporting it, or pass input_size=(C, H, W)"
        )
    model, example, reach = Door(backbone, fusion, enter), frames[:1].detach(), None
    site = fusion._plan.clip_site
    try:
        outputs = output_layouts(model, example)
        if site is not None:
            reach = reach_of(model, example, f"backbone.{site.module}", site.index, as_is=True)
    except Image2VideoError as error:
        raise UnsupportedError(
            f"the layouts of the outputs of {type(backbone).__name__} are not known, and tracing it failed ({error}); "
            'set backbone.output_fmt = "NCHW" (or "NHWC") for maps, or use aggregate="mean"'
        ) from error
    if site is None or reach is None:
        return Late(outputs, frozenset())
    return Late(outputs, frozenset(reach.outputs_before))
