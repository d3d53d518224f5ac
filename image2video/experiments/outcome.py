"""What came out of a comparison, as the JSON object that `ComparisonResult.from_dict` reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from image2video.experiments.arms import Arm
from image2video.report import Contrast
from image2video.report.result import KIND, SCHEMA_VERSION

_SHOWN = ("name", "title", "group", "genotype", "fusion", "start", "epochs_factor", "budget", "pool")


def result_record(*, contrasts: Sequence[Contrast], **parts: Any) -> dict[str, Any]:
    """A comparison with its parts (see `image2video.report.result`) and its questions."""
    head = {"kind": KIND, "schema_version": SCHEMA_VERSION}
    return head | parts | {"contrasts": [asdict(contrast) for contrast in contrasts]}


def arm_record(arm: Arm, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """An arm with the records of its runs."""
    return {key: getattr(arm, key) for key in _SHOWN} | {"runs": list(runs)}
