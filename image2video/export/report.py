"""What became of an export: how far the file's outputs are from the model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from image2video.errors import StateError


@dataclass(frozen=True)
class Difference:
    """How far a file's outputs are from the model's, on a batch.

    Attributes:
        batch: the number of images.
        absolute: the largest difference of a number.
        relative: the same as a share of the model's largest number.
        agreement: the share of images, or of pixels, whose class is the same; None for outputs without classes.
    """

    batch: int
    absolute: float
    relative: float
    agreement: float | None


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how it compares.

    Attributes:
        path: the file.
        format: its name.
        differences: by number of images.
        tolerance: the largest relative difference that is allowed.
        record: what stands in the check file.
    """

    path: Path
    format: str
    differences: tuple[Difference, ...]
    tolerance: float
    record: Mapping[str, Any]

    @property
    def largest(self) -> Difference:
        """The largest difference."""
        return max(self.differences, key=lambda difference: difference.relative)

    def sentence(self) -> str:
        """Say it in a line.

        Returns:
            The line.
        """
        largest = self.largest
        batches = ", ".join(str(difference.batch) for difference in self.differences)
        same = [difference.agreement for difference in self.differences if difference.agreement is not None]
        classes = f", {100 * min(same):.4g} % of the classes the same" if same else ""
        return (
            f"largest difference {largest.absolute:.2g}, {largest.relative:.2g} of the largest output"
            f"{classes} (batches of {batches}; tolerance {self.tolerance:g})"
        )


def difference(found: Sequence[Tensor], expected: Sequence[Tensor], batch: int) -> Difference:
    """Compare the outputs of a file with those of the model.

    Args:
        found: the file's, in float32.
        expected: the model's.
        batch: the number of images.

    Returns:
        The difference; NaN where there is one on either side.

    Raises:
        StateError: another number of outputs, or other shapes.
    """
    here, there = ([tuple(tensor.shape) for tensor in side] for side in (found, expected))
    if here != there:
        raise StateError(
            f"the file returns tensors of shapes {here} for {batch} images, the model {there}; expected the same: "
            "choose another format, or a fixed batch_size"
        )
    pairs = [(a.double(), b.double()) for a, b in zip(found, expected, strict=True) if b.numel()]
    absolute = _largest([(a - b).abs() for a, b in pairs])
    scale = _largest([b.abs() for _, b in pairs])
    relative = absolute / scale if scale > 0 else absolute
    first = expected[0] if expected else None
    agreement = None
    if first is not None and first.ndim >= 2 and first.shape[1] > 1:
        agreement = float((found[0].argmax(1) == first.argmax(1)).double().mean())
    return Difference(batch, absolute, relative, agreement)


def _largest(values: Sequence[Tensor]) -> float:
    """The largest number in tensors, NaN where there is one."""
    worst = 0.0
    for tensor in values:
        value = float(tensor.max())  # torch's max gives NaN where there is one
        if value != value:
            return value
        worst = max(worst, value)
    return worst


def plain(differences: Sequence[Difference]) -> list[dict[str, Any]]:
    """Differences as JSON values."""
    return [asdict(one) for one in differences]
