"""torch.export: the graph of a model, which several formats write, and its own file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from image2video.export.formats import ExportFormat, Request, Runner, register_format


def exported_program(model: nn.Module, request: Request) -> torch.export.ExportedProgram:
    """The graph of a model, with any number of images where that is asked for."""
    shapes = ({0: torch.export.Dim.DYNAMIC},) if request.dynamic_batch else None
    return torch.export.export(model, (request.images,), dynamic_shapes=shapes)


def tensors(outputs: Any) -> list[Tensor]:
    """The tensors of a model's outputs, whatever their nesting, in their order."""
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]


def program_runner(path: Path) -> Runner:
    """What runs a graph that `torch.export.save` wrote."""
    with warnings.catch_warnings():
        # torch 2.11 warns of tensors that it reads from bytes, which nobody writes to.
        warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
        module = torch.export.load(path).module()
    return lambda images: tensors(module(images))


@register_format
class PT2(ExportFormat):
    """The graph itself, for `torch.export.load`: it runs wherever torch does, and can be compiled there."""

    name = "pt2"
    suffix = ".pt2"
    dtypes = ("float32", "bf16")

    def write(self, model: nn.Module, request: Request, path: Path) -> dict[str, Any]:
        """Write the graph."""
        torch.export.save(exported_program(model, request), path)
        return {}

    def load(self, path: Path) -> Runner:
        """Read the graph."""
        return program_runner(path)
