"""What a row of measured runs shows beside its scores: calibration and stability, and gaps over seeds and images."""

from __future__ import annotations

from image2video.report.verdict import Verdict, signed
from image2video.reproduce.measures import SHIFTED_IMAGES
from image2video.reproduce.outcome import Line, RowOutcome
from image2video.reproduce.paired import RESAMPLES, Gap
from image2video.search.rank.calibration import BINS

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
GAP_COLUMNS = ("question", "A", "B", "A − B, points", "95 %, seeds and images", "95 %, seeds", "n", "A is")
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
        seeds = gap.over_seeds
        over_seeds = "one seed" if seeds.n == 1 else _ends(seeds.low, seeds.high)
        if not gap.trained:
            over_seeds = "nothing trained"
        points, both = signed(gap.mean, 2), _ends(gap.low, gap.high)
        found.append((contrast.lead, *sides, points, both, over_seeds, str(gap.seeds), gap.reading))
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
    """A gap as JSON values: points, what they are over, and how they read."""
    return {
        "points": round(gap.mean, 3),
        "low_95": round(gap.low, 3),
        "high_95": round(gap.high, 3),
        "n": gap.seeds,
        "images": gap.images,
        "a_is": gap.reading,
    }


def labelled_images(outcome: RowOutcome) -> str:
    """Which images a row in which nothing is trained is tested on, and which choose; counts where they are known."""
    setting = outcome.setting
    tested = {len(right) for line in outcome.lines for right in line.right.values()}
    count = tested.pop() if len(tested) == 1 else None
    text = f"{'' if count is None else f'{count:,} '}labelled images of {setting.data}"
    if not setting.holdout:
        return text
    if count is None or setting.train_images is None:
        return f"{text}; other labelled images choose clips and fit temperatures"
    return f"{text}; {setting.train_images - count:,} others choose clips and fit temperatures"


def measure_note(outcome: RowOutcome) -> str:
    """What the measures are, and how the gaps are to be read."""
    count = len(gap_cells(outcome))
    paired = (
        f"Gaps are paired by seed and by test image: {RESAMPLES:,} draws of both, with replacement; with one seed, of "
        "the images alone. Few seeds make this interval too narrow, so A is ahead or behind only where the t interval "
        "over seeds leaves zero out, too."
    )
    if not outcome.setting.trains:
        paired = (
            f"Gaps are paired by test image: {RESAMPLES:,} draws of the images, with replacement. Nothing is trained, "
            "so nothing else is drawn, and A is ahead or behind where this interval leaves zero out; that other images "
            "could have chosen another clip is not in it."
        )
    return (
        f"Cross-entropy in nats; the temperature of every arm is fitted on held-out images; ECE: expected calibration "
        f"error, {BINS} bins. A class stays where the prediction is the same after a diagonal shift of the image by so "
        f"many pixels, on the first {SHIFTED_IMAGES:,} test images. {paired} "
        f"Comparisons: {count}, none corrected for their number; of {count} true zeros, an interval of 95 % leaves "
        f"{count / 20:.1f} out on average."
    )


def gap_phrase(verdict: Verdict, gap: Gap) -> str:
    """What test images alone say of a question, in words and without a full stop."""
    sides = f"“{verdict.b}”", f"{_ends(gap.low, gap.high)} over {gap.images} images"
    if gap.reading == "undecided":
        return (
            f"{verdict.contrast.lead}, “{verdict.a}” against {sides[0]} is not decided ({signed(gap.mean)}, {sides[1]})"
        )
    side = "ahead of" if gap.reading == "ahead" else "behind"
    return f"{verdict.contrast.lead}, “{verdict.a}” is {side} {sides[0]} by {abs(gap.mean):.1f} points ({sides[1]})"


def _called(lines: list[Line]) -> str:
    return lines[0].arm.title if len(lines) == 1 else f"{lines[0].arm.group}, {len(lines)} of them"


def _ends(low: float, high: float) -> str:
    return f"{signed(low, 2)} … {signed(high, 2)}"
