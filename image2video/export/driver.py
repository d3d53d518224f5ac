"""Write a model into a file, read it with its own runtime, and compare: a file that differs is not left behind."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from image2video.errors import ExistsError, Image2VideoError, InputError, InputTypeError, StateError, UnsupportedError
from image2video.export.check import check_about, check_files, write_check
from image2video.export.config import ExportConfig
from image2video.export.formats import Request, Runner
from image2video.export.inputs import check_images, check_model, check_module, example_images, rows
from image2video.export.programs import tensors
from image2video.export.report import Difference, ExportReport, difference
from image2video.runs.partial import whole_file
from image2video.runs.texts import user_path


@torch.no_grad()
def export_model(
    model: nn.Module,
    path: str | os.PathLike[str],
    format: str | ExportConfig = "pt2",
    *,
    images: Tensor | None = None,
    calibration: Tensor | None = None,
    about: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> ExportReport:
    """Write a model into a file that runs without this library, and make sure that it computes the same.

    The file is read again by its own runtime and compared with the model, at other numbers of images than it was made
    with. Only then does it get its name; beside it stand `<name>.check.safetensors` (images, and what the model
    returns for them) and `<name>.check.json` (how it was made, and how it compares), which `check_export` reads.

    Args:
        model: a `VideoWrap`, or any module that takes images, in evaluation and on the CPU.
        path: the file; it ends with the format's suffix.
        format: a name in `export_formats()`, or an `ExportConfig` with all options.
        images: `(N, C, H, W)` in float32, normalised: the size that the file takes, and what it is compared on. None:
            random ones of the size that a `VideoWrap` was planned at.
        calibration: `(N, C, H, W)` for formats that take ranges from images; None: `images`, where they are given.
        about: further JSON values for the record, such as mean, std and the names of classes.
        overwrite: replace the files.

    Returns:
        The report, with the differences by number of images.

    Raises:
        ExistsError: one of the files exists.
        InputError: unfit options, a name with another suffix, images that the model cannot take, an `about` that is no
            JSON or has keys of the record's own.
        InputTypeError: no module, path, format, float32 images or mapping where one is expected.
        MissingError: a package or a compiler that the format needs is not there.
        StateError: a model in training mode, or a file that differs from the model by more than the tolerance.
        UnsupportedError: a model that makes random draws, is on another device, or that the exporter cannot follow.

    Example:
        >>> import tempfile, torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
        >>> report = export_model(net, tempfile.mkdtemp() + "/net.pt2", images=torch.randn(4, 3, 16, 24))
        >>> report.largest.relative < 1e-5
        True
    """
    check_module(model)
    if not isinstance(path, str | os.PathLike):
        raise InputTypeError(
            f"path must be the name of a file, got a {type(path).__name__}; the order is "
            "export_model(model, path, format)"
        )
    if not isinstance(format, str | ExportConfig):
        raise InputTypeError(f"format must be a name or an ExportConfig, got {format!r:.80}; write ExportConfig(…)")
    config = format if isinstance(format, ExportConfig) else ExportConfig(format)
    kind, target = config.kind, user_path(path)
    check_target(target, config, overwrite)
    check_about(about)
    kind.check_installed()
    check_model(model)
    given = example_images(model, images)
    eager = _Eager(model)
    outputs = eager(rows(given, config.traced))
    request = Request(
        rows(given, config.traced),
        config.batch_size is None,
        _names(len(outputs)),
        config.opset,
        _calibration(config, images, calibration, given),
    )
    with whole_file(target, check_files(target)) as partial:
        details = _written(model, config, request, partial)
        runner = _read_again(config, partial)
        differences = tuple(
            _compared(runner, eager, config, rows(given, count, start=count)) for count in config.compared
        )
        _check_differences(differences, config, target)
        report = ExportReport(partial, config.format, differences, config.allowed, {})
        checked = rows(given, max(config.compared))
        report = write_check(report, model, config, request, eager, checked, details, about)
    return replace(report, path=target)


class _Eager:
    """The model's own outputs; an error of the backbone becomes one that names the images."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, images: Tensor) -> list[Tensor]:
        try:
            found = tensors(self.model(images))
        except Image2VideoError:
            raise
        except Exception as error:  # a backbone refuses sizes with errors of any type
            raise InputError(
                f"the model cannot take images of shape {tuple(images.shape)} ({_reason(error)}); give images of its "
                "own size"
            ) from error
        if not found:
            raise UnsupportedError("the model must return tensors, got none; export a model that returns some")
        return found


class _Bfloat16(nn.Module):
    """A copy of a model in bfloat16 that takes and returns float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).to(torch.bfloat16)
        self.eval()

    def forward(self, images: Tensor) -> Any:
        outputs = self.model(images.to(torch.bfloat16))
        return tree_map(lambda out: out.float() if isinstance(out, Tensor) else out, outputs)


def check_target(target: Path, config: ExportConfig, overwrite: bool) -> None:
    """Refuse a name with another suffix, and files that exist."""
    suffix = config.kind.suffix
    if target.suffix != suffix:
        raise InputError(f"a file of format {config.format} must end with {suffix}, got {target.name!r:.80}")
    there = [str(path) for path in (target, *check_files(target)) if path.exists()]
    if there and not overwrite:
        raise ExistsError(f"{there[0]} exists; choose another name, or replace it with overwrite=True (--overwrite)")


def _calibration(
    config: ExportConfig, images: Tensor | None, calibration: Tensor | None, given: Tensor
) -> Tensor | None:
    """The images that ranges are taken from."""
    if not config.kind.calibrated:
        if calibration is not None:
            raise InputError(f"calibration: no effect on format {config.format}, which takes no ranges; leave it out")
        return None
    found = images if calibration is None else calibration
    if found is None:
        raise InputError(
            f"format {config.format} needs real images from which it takes the ranges of numbers, got none; give "
            "calibration=… (--data)"
        )
    found = check_images("calibration", found)
    if found.shape[1:] != given.shape[1:]:
        raise InputError(
            f"calibration must be images of the size of the others, {tuple(given.shape[1:])}, got {tuple(found.shape)}"
        )
    return found


def _names(count: int) -> tuple[str, ...]:
    """The names of outputs."""
    return ("output",) if count == 1 else tuple(f"output_{index}" for index in range(count))


def _written(model: nn.Module, config: ExportConfig, request: Request, path: Path) -> dict[str, Any]:
    """Write the file; what the exporter says of a model that it cannot follow becomes ours."""
    inner = _Bfloat16(model) if config.dtype == "bf16" else model
    try:
        return config.kind.write(inner, request, path)
    except Image2VideoError:
        raise
    except Exception as error:  # of many libraries
        raise UnsupportedError(
            f"format {config.format} could not write this model ({_reason(error)}); try another format, or "
            "a fixed batch_size"
        ) from error


def _read_again(config: ExportConfig, path: Path) -> Runner:
    """Open the file with its own runtime."""
    try:
        return config.kind.load(path)
    except Exception as error:  # of any runtime
        raise StateError(
            f"the {config.format} file cannot be read again ({_reason(error)}), so it was deleted; try another format"
        ) from error


def _compared(runner: Runner, eager: _Eager, config: ExportConfig, images: Tensor) -> Difference:
    """Run the file on images, and compare."""
    try:
        found = [tensor.float() for tensor in runner(images)]
    except Exception as error:  # of any runtime
        raise StateError(
            f"the {config.format} file does not run for {len(images)} images ({_reason(error)}), so it was deleted; "
            "try a fixed batch_size, or another format"
        ) from error
    return difference(found, [tensor.float() for tensor in eager(images)], len(images))


def _check_differences(differences: tuple[Difference, ...], config: ExportConfig, target: Path) -> None:
    """Refuse a file that is off."""
    for one in differences:
        if not one.relative <= config.allowed:  # NaN too
            raise StateError(
                f"the {config.format} file differs from the model by {one.relative:.2g} of its largest output for "
                f"{one.batch} images, got more than the tolerance of {config.allowed:g}, so {target.name} was not "
                "written; choose another format or dtype, or a larger tolerance"
            )


def _reason(error: Exception) -> str:
    """The first lines of an error, on one."""
    return f"{' '.join(str(error).split()) or type(error).__name__:.300}"
