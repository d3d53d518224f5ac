"""What a row of measured runs shows beside its scores: calibration and stability, and gaps over seeds and images."""

from __future__ import annotations

from image2video.report.stats import paired_difference
from image2video.report.verdict import signed
from image2video.reproduce.measures import BINS, SHIFTED_IMAGES
from image2video.reproduce.outcome import Line, RowOutcome
from image2video.reproduce.paired import RESAMPLES, Gap

COLUMNS = (
    "arm",
    "in the figure",
    "cross-entropy",
    "after temperature scaling",
    "ECE after it",
    "class stays under 2 px",
    "class stays under 4 px",
    "training s",
)
GAP_COLUMNS = ("question", "A", "B", "A − B, points", "95 %, seeds and images", "95 %, seeds", "n")
_KEYS = ("loss", "scaled_loss", "scaled_ece", "stays_2", "stays_4", "training_seconds")


def measured(outcome: RowOutcome) -> list[Line]:
    """The lines of a row that hold measures."""
    return [line for line in outcome.lines if line.measures]


def measure_cells(line: Line) -> tuple[str, ...]:
    """One arm as text, in the order of `COLUMNS`."""
    loss, scaled, *shares, seconds = [line.measures.get(key) for key in _KEYS]
    texts = ["" if value is None else f"{value:.3f}" for value in (loss, scaled)]
    texts += ["" if value is None else f"{100 * value:.1f} %" for value in shares]
    return (line.arm.title, line.arm.name, *texts, "" if seconds is None else f"{seconds:.0f}")


def gap_cells(outcome: RowOutcome) -> list[tuple[str, ...]]:
    """The questions of a row that measured runs answer, in the order of `GAP_COLUMNS`."""
    found = []
    for contrast in outcome.result.contrasts:
        gap = outcome.gap(contrast.a, contrast.b)
        if gap is None:
            continue
        sides = [_called(outcome.side(name)) for name in (contrast.a, contrast.b)]
        over = "one seed: images alone" if gap.seeds == 1 else ""
        interval = f"{signed(gap.low, 2)} … {signed(gap.high, 2)}" + (f" ({over})" if over else "")
        found.append(
            (
                contrast.lead,
                *sides,
                signed(gap.mean, 2),
                interval,
                _over_seeds(outcome, contrast.a, contrast.b),
                str(gap.seeds),
            )
        )
    return found


def gaps_record(outcome: RowOutcome) -> list[dict[str, object]]:
    """The same as JSON values."""
    found = []
    for contrast in outcome.result.contrasts:
        gap = outcome.gap(contrast.a, contrast.b)
        if gap is not None:
            found.append({"question": contrast.lead, "a": contrast.a, "b": contrast.b, **gap_record(gap)})
    return found


def gap_record(gap: Gap) -> dict[str, object]:
    """A gap as JSON values: points, what they are over, and whether a sign is decided."""
    return {
        "points": round(gap.mean, 3),
        "low_95": round(gap.low, 3),
        "high_95": round(gap.high, 3),
        "n": gap.seeds,
        "images": gap.images,
        "decided": gap.decided,
    }


def measure_note(outcome: RowOutcome) -> str:
    """What the measures are, and how the gaps are to be read."""
    count = len(gap_cells(outcome))
    return (
        f"Cross-entropy in nats; the temperature of every arm is fitted on held-out images; ECE: expected calibration "
        f"error, {BINS} bins. A class stays where the prediction is the same after a diagonal shift of the image by so "
        f"many pixels, on the first {SHIFTED_IMAGES:,} test images. Gaps are paired by seed and by test image: "
        f"{RESAMPLES:,} draws of both, with replacement. Few seeds make this interval too narrow, which the t interval "
        f"over seeds beside it is not. {count} comparisons, none corrected for their number: of {count} true zeros, "
        f"{count / 20:.1f} intervals on average would leave zero out."
    )


def _called(lines: list[Line]) -> str:
    return lines[0].arm.title if len(lines) == 1 else f"{lines[0].arm.group}, {len(lines)} of them"


def _over_seeds(outcome: RowOutcome, a: str, b: str) -> str:
    """The t interval over the seeds that all arms of both sides share."""
    sides = [outcome.side(name) for name in (a, b)]
    shared = set.intersection(*(set(line.right) for side in sides for line in side))
    first, second = ({seed: sum(line.by_seed[seed] for line in side) / len(side) for seed in shared} for side in sides)
    gap = paired_difference(first, second)
    if gap is None or gap.n == 1:
        return "one seed"
    return f"{signed(gap.low, 2)} … {signed(gap.high, 2)}"
