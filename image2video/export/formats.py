"""What an export format is: how a file is written, and how its own runtime reads it again."""

from __future__ import annotations

import difflib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn

from image2video.errors import InputError, InputTypeError, MissingError

Runner = Callable[[Tensor], list[Tensor]]
"""What runs a written file: images `(B, C, H, W)` in float32 to the list of its outputs."""


@dataclass(frozen=True)
class Request:
    """What a format is asked to write.

    Attributes:
        images: `(B, C, H, W)` in float32, with which the model is followed.
        dynamic_batch: whether B may be another one later.
        outputs: names of the outputs, in their order.
        opset: of ONNX; None for the exporter's own.
        calibration: `(N, C, H, W)`, from which ranges of eight bits are taken; None for formats without.
    """

    images: Tensor
    dynamic_batch: bool
    outputs: tuple[str, ...]
    opset: int | None = None
    calibration: Tensor | None = None


class ExportFormat(ABC):
    """A kind of file: `write` makes it of a model in evaluation, `load` gives a function that runs it.

    A subclass sets `name`, `suffix` and, where they differ, the other attributes.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    """Beside torch: names as they are imported and installed."""
    extra: ClassVar[str | None] = None
    """The extra of image2video that installs them; None for a format of another project."""
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)
    calibrated: ClassVar[bool] = False
    """Whether it needs images to take ranges of numbers from."""
    least_opset: ClassVar[int | None] = None
    """The first operator set of ONNX that has what it needs; None for a format without such sets."""
    tolerance: ClassVar[float] = 1e-5
    """The largest difference that is no fault in float32, as a share of the largest output."""

    @abstractmethod
    def write(self, model: nn.Module, request: Request, path: Path) -> dict[str, Any]:
        """Write the file.

        Args:
            model: in evaluation, on the CPU.
            request: what is asked for.
            path: ends with `suffix`.

        Returns:
            What the record of the file should say of it, such as its opset.
        """

    @abstractmethod
    def load(self, path: Path) -> Runner:
        """Read the file as a server would.

        Args:
            path: of the file.

        Returns:
            A function that runs it.
        """

    def check_installed(self) -> None:
        """Look whether all that the format needs is there.

        Raises:
            MissingError: a package is not, with what to install.
        """
        absent = [package for package in self.packages if importlib.util.find_spec(package) is None]
        if absent:
            ours = "" if self.extra is None else f", or pip install '.[{self.extra}]' in a clone of image2video"
            raise MissingError(
                f"format {self.name} needs {' and '.join(absent)}, got an environment without; run pip install "
                f"{' '.join(absent)}{ours}"
            )


_FORMATS: dict[str, ExportFormat] = {}
_Format = TypeVar("_Format", bound=type[ExportFormat])


def register_format(kind: _Format) -> _Format:
    """Make a format known under its name; use it as a decorator of an `ExportFormat`.

    Args:
        kind: the class.

    Returns:
        The class as it came.

    Raises:
        InputError: a name that is taken.
    """
    if kind.name in _FORMATS:
        raise InputError(f"the format {kind.name!r} is registered already; choose another name")
    _FORMATS[kind.name] = kind()
    return kind


def export_formats() -> Mapping[str, ExportFormat]:
    """Return the known formats.

    Returns:
        Every format by its name, in the order in which they were registered.
    """
    return dict(_FORMATS)


def get_format(name: str) -> ExportFormat:
    """Return the format of a name; `InputError` names the nearest where there is none."""
    if not isinstance(name, str):
        raise InputTypeError(f"format must be a name, one of {', '.join(_FORMATS)}, got {name!r:.80}")
    if name not in _FORMATS:
        near = difflib.get_close_matches(str(name)[:100], _FORMATS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"format must be one of {', '.join(_FORMATS)}, got {name!r:.80}{hint}")
    return _FORMATS[name]
