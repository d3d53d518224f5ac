"""TorchScript: a trace, for servers that know nothing newer."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from image2video.export.formats import ExportFormat, Request, Runner, register_format
from image2video.export.programs import tensors
from image2video.trace.capture import one_size


@register_format
class TorchScript(ExportFormat):
    """A trace for `torch.jit.load`; torch itself advises `torch.export` in its place."""

    name = "torchscript"
    suffix = ".ts"
    dtypes = ("float32", "bf16")

    def write(self, model: nn.Module, request: Request, path: Path) -> dict[str, Any]:
        """Trace and save."""
        # What a tracer warns of, values that it takes for constants, is what the comparison afterwards looks at.
        with warnings.catch_warnings(), one_size():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(_OfOneSize(model).eval(), (request.images,), strict=False, check_trace=False)
            torch.jit.save(traced, str(path))
        return {}

    def load(self, path: Path) -> Runner:
        """Load the trace."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TorchScript is deprecated
            traced = torch.jit.load(str(path))
        return lambda images: tensors(traced(images))


class _OfOneSize(nn.Module):
    """A model for images of the traced size: where frames are sampled is a constant, and a trace asks for no sizes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Any:
        """Call the model; the joining refuses images of another size when the file runs, 32×128 for 64×64 too."""
        channels, height, width = map(int, images.shape[1:])
        return self.model(torch.cat([images, images.new_empty(0, channels, height, width)]))
