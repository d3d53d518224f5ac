"""Eight bits: static quantisation of the exported graph (PT2E), with ranges from images."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from image2video.errors import InputError
from image2video.export.formats import ExportFormat, Request, Runner, register_format
from image2video.export.inputs import rows
from image2video.export.programs import exported_program, program_runner

_BATCH = 16


@register_format
class Int8(ExportFormat):
    """A graph whose convolutions and products are of eight bits, for `torch.export.load` and then the compiler.

    Weights and the inputs of layers are rounded by torchao's quantiser for x86. Where samples lie is a float32
    constant of the graph, which is not rounded.
    """

    name = "int8"
    suffix = ".pt2"
    packages = ("torchao",)
    extra = "int8"
    calibrated = True
    tolerance = 0.25

    def write(self, model: nn.Module, request: Request, path: Path) -> dict[str, Any]:
        """Take the ranges, round, and write the graph."""
        if request.calibration is None or not len(request.calibration):
            raise InputError("format int8 needs images from which it takes the ranges of numbers, got none; give some")
        pt2e = importlib.import_module("torchao.quantization.pt2e.quantize_pt2e")
        x86 = importlib.import_module("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")
        quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of parts of torch that torchao still uses
            prepared = pt2e.prepare_pt2e(exported_program(model, request).module(), quantizer)
            for batch in _batches(request):
                prepared(batch)
            rounded = pt2e.convert_pt2e(prepared)
            _drop_unused(rounded)
            torch.export.save(exported_program(rounded, request), path)
        return {"calibration_images": len(request.calibration), "quantizer": "X86InductorQuantizer, static"}

    def load(self, path: Path) -> Runner:
        """Read the graph; torchao has the operators that round."""
        importlib.import_module("torchao.quantization.pt2e.quantize_pt2e")
        return program_runner(path)


def _batches(request: Request) -> Iterator[Tensor]:
    """The images that ranges are taken from, as many at once as the graph takes; the last ones are filled up."""
    assert request.calibration is not None
    if request.dynamic_batch:
        yield from request.calibration.split(_BATCH)
        return
    size = len(request.images)
    for start in range(0, len(request.calibration), size):
        yield rows(request.calibration, size, start)


def _drop_unused(module: torch.fx.GraphModule) -> None:
    """Delete the weights that the graph no longer reads, in place: torchao leaves them beside those of eight bits."""
    read = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in (*module.named_parameters(), *module.named_buffers()) if name not in read]:
        owner, _, attribute = name.rpartition(".")
        delattr(module.get_submodule(owner), attribute)
