"""The figures of a measured row: what arms gain over the bare network at equal compute, and how that converged."""

from __future__ import annotations

import dataclasses
from typing import Any

from image2video.report.curves import learning_figure
from image2video.report.gains import Gain, Kind, gains_figure
from image2video.reproduce.outcome import Line, RowOutcome
from image2video.reproduce.paired import Gap


def over_of(outcome: RowOutcome) -> Line | None:
    """The bare network at equal compute of a row; None where it is not measured yet, or nothing is trained."""
    if not outcome.setting.trains:
        return None
    return next((line for line in outcome.lines if line.arm.equal_compute and line.right), None)


def gains_of(outcome: RowOutcome) -> list[tuple[Line, Gap]]:
    """What the other measured arms gain over it, in the row's order; none before an arm with a clip is measured.

    Arms that are tested in a pose are left out.
    """
    over = over_of(outcome)
    if over is None:
        return []
    found = []
    for line in outcome.lines:
        if line is over or line.arm.pose is not None or not line.right:
            continue
        gap = outcome.gap(line.arm.name, over.arm.name)
        if gap is not None:
            found.append((line, gap))
    return found if any(line.arm.fusion is not None for line, _ in found) else []


def row_gains(outcome: RowOutcome) -> Any:
    """The (matplotlib) figure of a row's gains against cost; None where no arm with a clip is measured yet."""
    over = over_of(outcome)
    gains = [
        Gain(line.arm.name, _kind(line), line.macs, gap.mean, gap.low, gap.high, gap.seeds)
        for line, gap in gains_of(outcome)
        if line.macs is not None
    ]
    if over is None or over.macs is None or not gains:
        return None
    return gains_figure(gains, over.arm.name, over.macs)


def row_curves(outcome: RowOutcome) -> Any:
    """The (matplotlib) figure of the held-out accuracy of the bare networks over epochs; None where there is none yet.

    It says how far longer training still helps.
    """
    result = outcome.result
    bare = [arm for arm in result.arms if arm.fusion is None and any(run.curve for run in arm.runs)]
    return learning_figure(dataclasses.replace(result, arms=tuple(bare))) if bare else None


def _kind(line: Line) -> Kind:
    if line.arm.fusion is None:
        return "bare"
    return "averaged" if line.arm.fusion == "none" else "fused"
