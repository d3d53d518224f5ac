"""The check file beside an export: images, what the model returned for them, and how the file was made."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from image2video.errors import InputError, InputTypeError, MissingError
from image2video.export.config import ExportConfig
from image2video.export.formats import ExportFormat, Request, get_format
from image2video.export.report import ExportReport, difference, plain
from image2video.runs.atomic import atomic_write_bytes, atomic_write_json
from image2video.runs.texts import read_json, user_path
from image2video.runs.weights import read_safetensors
from image2video.version import __version__
from image2video.wrap.video_wrap import VideoWrap

SCHEMA = 1
_IMAGES = "images"
_OWN = (
    *("schema", "file", "sha256", "format", "dtype", "opset", "opsets", "calibration_images", "quantizer"),
    *("input", "outputs", "clip", "differences", "tolerance", "versions"),
)
"""Keys of a record that are not of `about`."""


def check_files(target: Path) -> tuple[Path, Path]:
    """Return the names of an export's tensors and of its record."""
    return target.with_name(f"{target.name}.check.safetensors"), target.with_name(f"{target.name}.check.json")


def check_about(about: Mapping[str, Any] | None) -> None:
    """Refuse, before anything is written, further values that are no JSON or would hide what the record says itself."""
    if about is not None and not isinstance(about, Mapping):
        raise InputTypeError(f"about must be a mapping of names to JSON values, got a {type(about).__name__}")
    _refuse_hidden(about, _OWN)
    try:
        json.dumps(about, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"about must hold JSON values alone ({error}); convert the others") from error


def _refuse_hidden(about: Mapping[str, Any] | None, own: Iterable[str]) -> None:
    """Raise `InputError` where `about` has keys that the record says itself."""
    hidden = sorted(set(about or {}) & set(own))
    if hidden:
        raise InputError(f"about has {', '.join(hidden)}, which the record says itself; choose other names")


def write_check(
    report: ExportReport,
    model: nn.Module,
    config: ExportConfig,
    request: Request,
    eager: Callable[[Tensor], list[Tensor]],
    images: Tensor,
    details: Mapping[str, Any],
    about: Mapping[str, Any] | None,
) -> ExportReport:
    """Write tensors and record beside the file; return the report with its record."""
    from safetensors.torch import save as to_bytes

    _refuse_hidden(about, details)
    outputs = dict(zip(request.outputs, (tensor.contiguous().clone() for tensor in eager(images)), strict=True))
    tensors_path, record_path = check_files(report.path)
    atomic_write_bytes(tensors_path, to_bytes({_IMAGES: images.contiguous(), **outputs}))
    rows: int | str = "batch" if config.batch_size is None else config.batch_size
    record = {
        "schema": SCHEMA,
        "file": report.path.name,
        "sha256": _digest(report.path),
        "format": config.format,
        "dtype": config.dtype,
        **details,
        "input": {"name": _IMAGES, "shape": [rows, *images.shape[1:]], "dtype": "float32"},
        "outputs": [
            {"name": name, "shape": [rows, *out.shape[1:]], "dtype": str(out.dtype).removeprefix("torch.")}
            for name, out in outputs.items()
        ],
        "clip": _clip(model),
        **(about or {}),
        "differences": plain(report.differences),
        "tolerance": report.tolerance,
        "versions": _versions(config),
    }
    atomic_write_json(record_path, record)
    return replace(report, record=record)


@torch.no_grad()
def check_export(path: str | os.PathLike[str]) -> ExportReport:
    """Run an exported file on the images of its check file, and compare with what the model returned for them.

    It needs no model: so a file is tried on the machine that it was brought to.

    Args:
        path: the exported file; its check files stand beside it.

    Returns:
        The report; it raises nothing where the difference is above the tolerance.

    Raises:
        InputError: a check file that is damaged, or of another file.
        MissingError: one of the three files, or a package that the format needs, is not there.
    """
    target = user_path(path)
    saved = read_check(target)
    saved.kind.check_installed()
    found = [tensor.float() for tensor in saved.kind.load(target)(saved.images)]
    compared = difference(found, [tensor.float() for tensor in saved.outputs], len(saved.images))
    return ExportReport(target, saved.kind.name, (compared,), saved.tolerance, saved.record)


@dataclass(frozen=True)
class SavedCheck:
    """What the check files of an export say.

    Attributes:
        kind: the format.
        images: `(N, C, H, W)`.
        outputs: what the model returned for them.
        tolerance: the largest relative difference that is no fault.
        record: all of the record.
    """

    kind: ExportFormat
    images: Tensor
    outputs: tuple[Tensor, ...]
    tolerance: float
    record: Mapping[str, Any]


def read_check(target: Path) -> SavedCheck:
    """Read the check files of an export; raises as `check_export`."""
    if not target.is_file():
        raise MissingError(f"expected a file: no export at {target}")
    tensors_path, record_path = check_files(target)
    record = read_json(record_path, "record of an export")
    if not isinstance(record, Mapping) or record.get("schema") != SCHEMA:
        raise InputError(f"{record_path} must be the record of an export, of schema {SCHEMA}; export the model again")
    if record.get("sha256") != _digest(target):
        raise InputError(f"{target} is not the file that {record_path.name} describes; copy both again")
    saved = read_safetensors(tensors_path)
    kind = get_format(str(record.get("format")))
    try:
        outputs = tuple(saved[output["name"]] for output in record["outputs"])
        return SavedCheck(kind, saved[_IMAGES], outputs, float(record["tolerance"]), record)
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise InputError(f"{record_path} does not fit {tensors_path.name} ({error}); export the model again") from error


def _digest(path: Path) -> str:
    """What tells a file from others."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _clip(model: nn.Module) -> dict[str, Any] | None:
    """How the model sees an image; None for a bare one."""
    if not isinstance(model, VideoWrap):
        return None
    site, options = model.plan.clip_site, getattr(model.to_video, "options", None)
    return {
        "genotype": json.loads(model.genotype.to_json()) if model.genotype is not None else None,
        "text": str(model.genotype),
        "T": model.T,
        **({} if options is None else options.to_dict()),
        "clip_at": None if site is None else site.name,
        "fusion": model.plan.fusion.to_dict(),
        "aggregate": model.aggregate if isinstance(model.aggregate, str) else getattr(model.aggregate, "__name__", ""),
    }


def _versions(config: ExportConfig) -> dict[str, str]:
    """The versions that the file depends on."""
    found = {"image2video": __version__, "torch": torch.__version__}
    for package in config.kind.packages:
        found[package] = metadata.version(package)
    return found
