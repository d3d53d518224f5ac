"""Wrapped models as files that run without this library: torch.export, ONNX, AOTInductor, TorchScript, eight bits.

A format is one small file here, over a shared engine that writes, reads the file again and compares.
"""

from image2video.export.aoti import AOTI
from image2video.export.check import check_export
from image2video.export.config import ExportConfig
from image2video.export.driver import export_model
from image2video.export.formats import ExportFormat, Request, export_formats, register_format
from image2video.export.int8 import Int8
from image2video.export.onnx_files import Onnx, OnnxLegacy
from image2video.export.programs import PT2
from image2video.export.report import Difference, ExportReport
from image2video.export.torchscript import TorchScript

__all__ = [
    "AOTI",
    "PT2",
    "Difference",
    "ExportConfig",
    "ExportFormat",
    "ExportReport",
    "Int8",
    "Onnx",
    "OnnxLegacy",
    "Request",
    "TorchScript",
    "check_export",
    "export_formats",
    "export_model",
    "register_format",
]
