"""What a search's report reads: the outcome in plain values, whatever the selection."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from image2video.report.result import ComparisonResult, SearchRecord

DECIDED = 2.0
"""Standard errors by which a gap must exceed zero before it is called decided."""
COMPARE = "the same command with --resume --compare random:5 trains the networks that tell"
"""How to find out whether a genotype is better than a random one, where that was not measured."""


@dataclass(frozen=True)
class Decision:
    """One decision of a search, and how decided it was.

    Attributes:
        where: the edge as `in → 2`, or `into 3`: which edge the node keeps.
        kept: what was kept: an op, or an edge.
        second: what came second; None where nothing else was there, or nothing was scored.
        gap: how much more the removal of the first costs than that of the second, in the report's `unit`.
        error: one standard error of the gap.
        decided: whether the gap exceeds two standard errors.
        by: `scores`, `orders` (the mean over several), or `tau` (the budget was spent: τ was read).
        images: held-out images behind it.
        on_path: whether the genotype runs through it.
    """

    where: str
    kept: str
    second: str | None
    gap: float | None
    error: float | None
    decided: bool
    by: str = "scores"
    images: int = 0
    on_path: bool = False


@dataclass(frozen=True)
class RankedChain:
    """A chain with its held-out score.

    Attributes:
        genotype: the chain.
        images: how many it was scored on.
        accuracy: in percent.
        gain: over the identity, in points.
        gain_error: one standard error of the gain.
        loss: in nats.
        place: the module at whose input the clip begins; None for the image.
    """

    genotype: str
    images: int
    accuracy: float
    gain: float
    gain_error: float
    loss: float
    place: str | None = None

    @property
    def decided(self) -> bool:
        """Whether the gain, up or down, exceeds two standard errors."""
        return abs(self.gain) > DECIDED * self.gain_error


@dataclass(frozen=True)
class CurveRow:
    """The best set of some number of frames, with its held-out scores.

    Attributes:
        frames: how many.
        added: the chain of the frame that was added last.
        images: how many scored it.
        judged: whether these images chose nothing.
        accuracy: in percent.
        gain: over the image itself, in points.
        gain_error: one standard error of the gain.
        calibrated_gain: the loss after temperature scaling, less that of the image itself, in nats.
        calibrated_error: one standard error of it.
        chosen: whether it is the set that was found.
    """

    frames: int
    added: str
    images: int
    judged: bool
    accuracy: float
    gain: float
    gain_error: float
    calibrated_gain: float
    calibrated_error: float
    chosen: bool


@dataclass(frozen=True)
class SearchReport:
    """The outcome of one search as its report shows it.

    Attributes:
        title: of the page.
        genotype: the chain that was found.
        selection: how it was chosen.
        sentence: what the search itself says of it.
        unit: of the gaps: `points` (of the metric), or `nats` (of the loss).
        metric: what the scores are: `accuracy`, `mIoU`.
        search: the cell for the figures; None where there was none, or one at each of several places.
        places: these places of the network in order, each with its cell.
        entropy: the mean entropy of τ's rows at the entries of the cell's history, in nats.
        decisions: in the order in which they were made.
        ranking: ranked chains, the best first; those behind `finalists` left early.
        finalists: how many of them were scored on all images.
        place: the module at whose input the found clip begins; None for the image.
        curve: the sets of a greedy search of frames, the smallest first.
        cost: what the search took, in words.
        facts: data, network, settings, versions.
        comparison: the trained candidates, where there are some.
        what_tells: how to find out whether the chain is better than a random one, where there are none.
    """

    title: str
    genotype: str
    selection: str
    sentence: str
    unit: str = "points"
    metric: str = "accuracy"
    search: SearchRecord | None = None
    places: tuple[tuple[str, SearchRecord], ...] = ()
    entropy: tuple[float, ...] = ()
    decisions: tuple[Decision, ...] = ()
    ranking: tuple[RankedChain, ...] = ()
    finalists: int = 0
    place: str | None = None
    curve: tuple[CurveRow, ...] = ()
    cost: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    comparison: ComparisonResult | None = None
    what_tells: str = COMPARE
