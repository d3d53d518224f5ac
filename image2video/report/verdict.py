"""What the numbers say, in words that they support: ahead, behind, or not decided."""

from __future__ import annotations

from dataclasses import dataclass

from image2video.report.page import cells_html, wide_table
from image2video.report.result import ArmRuns, ComparisonResult, Contrast
from image2video.report.stats import Interval, pooled_difference


@dataclass(frozen=True)
class Verdict:
    """A contrast with the difference of its two sides, and its reading.

    Attributes:
        contrast: the question.
        a: the first side in words.
        b: the second side in words.
        difference: of the two, paired by seed, in points of accuracy.
        draws: how many arms stand on the second side: more than 1 for a pool.
    """

    contrast: Contrast
    a: str
    b: str
    difference: Interval
    draws: int = 1

    @property
    def outcome(self) -> str:
        """`ahead`, `behind`, or `undecided` (the interval holds 0, has no width, or there is one seed only)."""
        if not self.difference.decided:
            return "undecided"
        return "ahead" if self.difference.mean > 0 else "behind"

    @property
    def n(self) -> str:
        """How many seeds, and how many draws where there are several: `3`, `3 × 5`."""
        return f"{self.difference.n}" + (f" × {self.draws}" if self.draws > 1 else "")

    def phrase(self) -> str:
        """The reading in words.

        Returns:
            A clause without a full stop, with the numbers in it.
        """
        d, against = self.difference, f"{self.contrast.lead}, “{self.a}” against “{self.b}” is not decided"
        if d.n == 1:
            return f"{against}: one seed ({signed(d.mean)} points) has no interval"
        if d.half_width <= 1e-9 and d.mean != 0:
            return f"{against}: {signed(d.mean)} points in each of {d.n} seeds, which gives no interval"
        # One decimal, unless it would hide on which side of 0 the interval ends.
        decimals = 2 if round(abs(d.mean), 1) == round(d.half_width, 1) else 1
        half = f"{d.half_width:.{decimals}f} points"
        if self.outcome == "undecided":
            return f"{against} at n = {self.n} ({signed(d.mean, decimals)} ± {half})"
        side = "ahead of" if self.outcome == "ahead" else "behind"
        points = f"{abs(d.mean):.{decimals}f} ± {half} (n = {self.n})"
        return f"{self.contrast.lead}, “{self.a}” is {side} “{self.b}” by {points}"


def signed(value: float, decimals: int = 1) -> str:
    """A difference with its sign; what rounds to zero has none."""
    text = f"{value:+.{decimals}f}".replace("-", "−")
    return text if text.strip("+−0.") else text[1:]


def verdicts(result: ComparisonResult) -> list[Verdict]:
    """The answers to the questions of a comparison.

    Args:
        result: the comparison.

    Returns:
        A verdict for each contrast whose two sides share at least one finished seed, in the result's order.
    """
    found = []
    for contrast in result.contrasts:
        a, others = result.members(contrast.a), result.members(contrast.b)
        if not a or not others:
            continue
        difference = pooled_difference(a[0].by_seed(), [arm.by_seed() for arm in others])
        if difference is not None:
            found.append(Verdict(contrast, a[0].title, _side(others), difference, len(others)))
    return found


def _side(arms: tuple[ArmRuns, ...]) -> str:
    """What a side of a contrast is called: the arm's title, or the group and the number of a pool's arms."""
    return arms[0].title if len(arms) == 1 else f"{arms[0].group}, {len(arms)} of them"


def verdict_sentence(result: ComparisonResult) -> str:
    """One sentence from the headline contrasts: paired differences by seed with 95 % t intervals, never a bare mean.

    Args:
        result: the comparison.

    Returns:
        The sentence.
    """
    headline = [verdict for verdict in verdicts(result) if verdict.contrast.headline]
    if not headline:
        return "No comparison of this result has both of its arms finished."
    if all(verdict.difference.n == 1 for verdict in headline):
        found = "; ".join(f"{v.contrast.lead} {signed(v.difference.mean)} ({v.a}, {v.b})" for v in headline)
        return f"One seed has no interval and decides nothing; the differences were, in points: {found}."
    text = "; ".join(verdict.phrase() for verdict in headline)
    return f"{text[0].upper()}{text[1:]}."


def html_verdicts(result: ComparisonResult) -> str:
    """Every contrast as a row: the question, the two arms, the difference, its interval, and the reading."""
    rows = []
    for verdict in verdicts(result):
        d = verdict.difference
        interval = f"{signed(d.low, 2)} … {signed(d.high, 2)}"
        if d.n == 1:
            interval = "one seed"
        elif d.half_width <= 1e-9:
            interval = "no spread"
        cells = (verdict.contrast.lead, verdict.a, verdict.b, signed(d.mean, 2), interval, verdict.n, verdict.outcome)
        rows.append(f'<tr class="{verdict.outcome}">{cells_html("td", cells, {3, 4, 5})}</tr>')
    head = "".join(f"<th>{name}</th>" for name in ("", "A", "B", "A − B, points", "95 % interval", "n", "A is"))
    return wide_table(head, "".join(rows))
