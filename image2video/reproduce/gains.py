"""What every arm of a measured row gains over the bare network at equal compute."""

from __future__ import annotations

from typing import Any

from image2video.report.gains import Gain, Kind, gains_figure
from image2video.reproduce.outcome import Line, RowOutcome


def row_gains(outcome: RowOutcome) -> Any:
    """The (matplotlib) figure of a row's gains.

    None where the bare network at equal compute or every other arm is not measured yet.
    """
    over = next((line for line in outcome.lines if line.arm.equal_compute), None)
    if over is None or not over.right or over.macs is None:
        return None
    gains = []
    for line in outcome.lines:
        gap = None if line is over or not line.right else outcome.gap(line.arm.name, over.arm.name)
        if gap is not None and line.macs is not None:
            gains.append(Gain(line.arm.name, _kind(line), line.macs, gap.mean, gap.low, gap.high, gap.seeds))
    return gains_figure(gains, over.arm.name, over.macs) if gains else None


def _kind(line: Line) -> Kind:
    if line.arm.fusion is None:
        return "bare"
    return "averaged" if line.arm.fusion == "none" else "fused"
