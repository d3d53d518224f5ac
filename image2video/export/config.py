"""What an export is asked to be."""

from __future__ import annotations

import math
from dataclasses import dataclass

from image2video.errors import InputError, InputTypeError
from image2video.export.formats import ExportFormat, get_format

DTYPES = ("float32", "bf16")
TRACED = 2
"""Images with which a model is followed where any number may come: a graph takes 1 for a constant."""
COMPARED = (1, 2, 5)
"""Numbers of images with which the file is compared then."""
HALF = 0.1
"""The tolerance of bfloat16, whose numbers have three digits, over a whole network."""


@dataclass(frozen=True)
class ExportConfig:
    """How a model is exported.

    Args:
        format: a name in `export_formats()`.
        batch_size: images per call of the file; None for any number.
        dtype: of the weights and of what is computed: `float32`, or `bf16`; images and outputs are float32 in both.
        opset: of ONNX; None for the exporter's own.
        tolerance: the largest difference from the model that is no fault, as a share of the model's largest output;
            None for the format's own.

    Raises:
        InputError: an unknown format or dtype, an option that the format does not have, a number out of range.
        InputTypeError: a format that is no name, or something else than a number where one is expected.
    """

    format: str = "pt2"
    batch_size: int | None = None
    dtype: str = "float32"
    opset: int | None = None
    tolerance: float | None = None

    def __post_init__(self) -> None:
        kind = get_format(self.format)
        for name in ("batch_size", "opset"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise InputTypeError(f"{name} must be a whole number or None, got {value!r:.80}")
        if self.tolerance is not None and (
            isinstance(self.tolerance, bool) or not isinstance(self.tolerance, int | float)
        ):
            raise InputTypeError(f"tolerance must be a number or None, got {self.tolerance!r:.80}")
        if self.batch_size is not None and not self.batch_size >= 1:
            raise InputError(f"batch_size must be at least 1, or None for any number, got {self.batch_size}")
        if self.dtype not in DTYPES:
            raise InputError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r:.80}")
        if self.dtype not in kind.dtypes:
            able = [name for name in DTYPES if name in kind.dtypes]
            raise InputError(
                f"dtype={self.dtype!r} is not possible with format {self.format}, whose runtime computes in "
                f"{' and '.join(able)}; leave it out, or choose another format"
            )
        if self.opset is not None:
            if kind.least_opset is None:
                raise InputError(f"opset={self.opset}: no effect on format {self.format}, no ONNX; leave it out")
            if self.opset < kind.least_opset:
                raise InputError(f"opset must be at least {kind.least_opset}, which has GridSample, got {self.opset}")
        if self.tolerance is not None and not (self.tolerance >= 0 and math.isfinite(self.tolerance)):
            raise InputError(f"tolerance must be a finite number of at least 0, got {self.tolerance}")

    @property
    def kind(self) -> ExportFormat:
        """The format."""
        return get_format(self.format)

    @property
    def allowed(self) -> float:
        """The tolerance."""
        if self.tolerance is not None:
            return self.tolerance
        return self.kind.tolerance if self.dtype == "float32" else max(HALF, self.kind.tolerance)

    @property
    def traced(self) -> int:
        """Images with which the model is followed."""
        return TRACED if self.batch_size is None else self.batch_size

    @property
    def compared(self) -> tuple[int, ...]:
        """Numbers of images with which the file is compared."""
        return COMPARED if self.batch_size is None else (self.batch_size,)
