"""ONNX, by both exporters of torch."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from image2video.export.formats import ExportFormat, Request, Runner, register_format
from image2video.trace.capture import one_size

INPUT = "images"


class _OnnxFile(ExportFormat):
    """A graph of standard operators, run by onnxruntime and by many other runtimes."""

    suffix = ".onnx"
    least_opset = 16  # the first that has GridSample, which makes the frames
    # onnxruntime has no convolution of bfloat16 on a CPU.
    dtypes = ("float32",)
    dynamo: bool

    def write(self, model: nn.Module, request: Request, path: Path) -> dict[str, Any]:
        """Write the graph, with its weights in the same file."""
        options: dict[str, Any] = {"opset_version": request.opset, "dynamo": self.dynamo, "verbose": False}
        if self.dynamo:
            options["external_data"] = False
            if request.dynamic_batch:
                options["dynamic_shapes"] = ({0: torch.export.Dim("batch")},)
        elif request.dynamic_batch:
            options["dynamic_axes"] = {name: {0: "batch"} for name in (INPUT, *request.outputs)}
        with warnings.catch_warnings(), one_size():
            # Advice to use the other exporter, and values that a tracer takes for constants: the comparison
            # afterwards looks at them.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                (request.images,),
                str(path),
                input_names=[INPUT],
                output_names=list(request.outputs),
                **options,
            )
        onnx = importlib.import_module("onnx")
        onnx.checker.check_model(str(path))
        sets = {
            one.domain or "ai.onnx": one.version for one in onnx.load(str(path), load_external_data=False).opset_import
        }
        return {"opset": sets["ai.onnx"], "opsets": sets}

    def load(self, path: Path) -> Runner:
        """Open a session of onnxruntime on the CPU."""
        runtime = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors: it also logs which operators it would like to be written otherwise
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

        def run(images: Tensor) -> list[Tensor]:
            return [torch.from_numpy(out) for out in session.run(None, {INPUT: images.numpy()})]

        return run


@register_format
class Onnx(_OnnxFile):
    """ONNX of the graph of `torch.export`, torch's own exporter of today."""

    name = "onnx"
    packages = ("onnx", "onnxscript", "onnxruntime")
    extra = "export"
    dynamo = True


@register_format
class OnnxLegacy(_OnnxFile):
    """ONNX of a TorchScript trace, the exporter that timm's scripts use by default."""

    name = "onnx-legacy"
    packages = ("onnx", "onnxruntime")
    extra = "export"
    dynamo = False
