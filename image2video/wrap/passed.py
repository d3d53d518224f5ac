"""Which places of a clip the outputs of a backbone have passed: traced, where neither plan nor shapes tell."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from image2video.errors import UnsupportedError
from image2video.inject.api import Injection
from image2video.inject.door import Door, Enter
from image2video.trace.cuts import behind
from image2video.trace.graph import Graph, has
from image2video.trace.trace import trace_forward
from image2video.wrap.inside import Given


class Passed(NamedTuple):
    """What a trace tells of one output.

    Args:
        places: how many clip sites it has passed.
        shape: of it, for images that are one frame each.
        merges: whether it is `tokens.reshape(B, h, w, -1).permute(0, 3, 1, 2)`, with the B of the images: behind the
            place where a clip begins, the frames of an image would become channels.
    """

    places: int
    shape: tuple[int, ...]
    merges: bool


def passed_outputs(backbone: nn.Module, fusion: Injection, images: Tensor, enter: Enter) -> dict[str, Passed]:
    """Tell of every tensor that a call returns, by its path, which clip sites it has passed, and how it was shaped.

    Args:
        backbone: an injected backbone with clip sites, in the mode that it is in.
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
            "cannot be done within a graph: call the model uncompiled"
        )
    graph = Graph(trace_forward(Door(backbone, fusion, enter), images[:1].detach(), as_is=True))
    regions = []
    for site in fusion._plan.clip_sites:
        # `stop_early` of timm's intermediates may leave a place out.
        calls = [call for call in graph.calls if call.name == f"backbone.{site.module}"]
        regions += [behind(graph, call.inputs[site.index], call) for call in calls]
    return {
        path: Passed(sum(has(region, value) for region in regions), graph.values[value].shape, _merges(graph, value))
        for path, value in graph.trace.outputs
    }


def passed_places(backbone: nn.Module, fusion: Injection, images: Tensor, enter: Enter) -> dict[str, int]:
    """Count for every tensor that a call returns, by its path, the clip sites that it has passed.

    Arguments and errors are those of `passed_outputs`.
    """
    return {path: found.places for path, found in passed_outputs(backbone, fusion, images, enter).items()}


def rows_of_frames(value: Tensor, given: Given, passed: Passed, name: str) -> Tensor:
    """Return maps or vectors behind the place where a clip begins with one row per frame, `(B·T, …)`.

    Args:
        value: what the backbone returned.
        given: what it got.
        passed: what a trace tells of the value.
        name: of the value, for the error.

    Raises:
        UnsupportedError: rows that are neither those of the frames nor known to hold them.
    """
    if value.shape[0] == given.rows:
        return value
    images = given.inputs.shape[0]
    if passed.merges and value.shape == (images, given.T * passed.shape[1], *passed.shape[2:]):
        # The frames of an image follow one another in memory, with the channels last.
        rows = value.permute(0, 2, 3, 1).reshape(images * given.T, *passed.shape[2:], passed.shape[1])
        return rows.permute(0, 3, 1, 2).contiguous()
    raise UnsupportedError(
        f"{name} lies behind the place where the clip begins, and must have a row for each of {given.rows} frames, got "
        f"the shape {tuple(value.shape)}: the backbone counts the images as they come in; let the clip begin at the "
        "image, or ask for features before the place"
    )


def _merges(graph: Graph, index: int) -> bool:
    """Whether a value is `tokens.reshape(B, h, w, -1).permute(0, 3, 1, 2)`, in so many words."""
    value = graph.values[index]
    while value.op in ("contiguous", "clone") and len(value.operands) == 1:
        value = graph.values[value.operands[0]]
    if value.op != "permute" or value.operation is None or _numbers(value.operation.args[1:]) != (0, 3, 1, 2):
        return False
    reshaped = graph.values[value.operands[0]]
    if reshaped.op not in ("reshape", "view") or reshaped.operation is None:
        return False
    target, tokens = _numbers(reshaped.operation.args[1:]), graph.values[reshaped.operands[0]].shape
    batch, *size, channels = reshaped.shape
    return target == (batch, *size, -1) and tokens == (batch, math.prod(size), channels)


def _numbers(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return numbers that were given one by one, or in a list."""
    return tuple(args[0]) if len(args) == 1 and isinstance(args[0], list | tuple) else args
