"""AOTInductor: a model compiled to machine code ahead of time."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from image2video.errors import MissingError
from image2video.export.formats import ExportFormat, Request, Runner, register_format
from image2video.export.programs import exported_program, tensors

_COMPILERS = ("g++", "clang++", "c++", "cl")


@register_format
class AOTI(ExportFormat):
    """A package of machine code for this kind of processor; it is loaded without Python's part of torch, in C++ too."""

    name = "aoti"
    suffix = ".pt2"
    dtypes = ("float32", "bf16")

    def check_installed(self) -> None:
        """Raise `MissingError` where there is no C++ compiler."""
        super().check_installed()
        if not any(shutil.which(name) for name in _COMPILERS):
            raise MissingError(
                f"format {self.name} needs a C++ compiler, got none of {', '.join(_COMPILERS)}; install g++"
            )

    def write(self, model: nn.Module, request: Request, path: Path) -> dict[str, Any]:
        """Compile the graph and write the package."""
        program = exported_program(model, request)
        torch._inductor.aoti_compile_and_package(program, package_path=str(path))
        return {}

    def load(self, path: Path) -> Runner:
        """Load the package."""
        compiled = torch._inductor.aoti_load_package(str(path))
        return lambda images: tensors(compiled(images))
