"""An assessment as one HTML page: three sentences, a table, a figure, and what the words mean."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from matplotlib.figure import Figure

from image2video.assess.assessment import Assessment, Row, Tuning
from image2video.assess.figures import PixelFigures
from image2video.report.page import Section, document, facts_list, figure_html, table_html
from image2video.report.style import GREY, colours, drawing, new_figure
from image2video.search.rank.gain import INTERVAL

_FIRST_NUMBER, _CHOSEN_ON = 2, 3


def page(assessment: Assessment, reading: Sequence[str] | None = None) -> str:
    """The report of an assessment.

    Args:
        assessment: what was found.
        reading: what the words of the page mean, a paragraph each; those of a classifier's page by default.

    Returns:
        The HTML, with everything in it.
    """
    sections = [
        Section("All clips that were compared to the end", _table(assessment)),
        *(
            []
            if assessment.tuning is None
            else [Section("Fine-tuned beside it", _tuned(assessment.tuning, _columns(assessment)))]
        ),
        Section("Gain, the cheapest clip on top", figure_html(gain_figure(assessment), _caption(assessment))),
        Section("Time", _times(assessment)),
        Section("How to read it", "".join(f"<p>{escape(text)}</p>" for text in reading or _reading(assessment))),
    ]
    if assessment.notes:
        sections.append(Section("Notes", "".join(f"<p>{escape(text)}</p>" for text in assessment.notes)))
    if assessment.about:
        sections.append(Section("About", facts_list(assessment.about)))
    return document("Does a clip help this model?", assessment.sentences(), sections)


def gain_figure(assessment: Assessment) -> Figure:
    """Gain in accuracy or mIoU with its 95 % interval, a line per clip, the cheapest on top; the chosen one is filled.

    Args:
        assessment: what was found.

    Returns:
        The figure.
    """
    ours, other = colours(2)
    rows = sorted(assessment.rows, key=lambda row: row.finalist.cost)
    with drawing():
        figure = new_figure(6.4, 0.9 + 0.3 * len(rows))
        axis = figure.add_subplot()
        axis.axvline(0, color=GREY, linewidth=0.8)
        for height, row in enumerate(rows):
            colour = ours if row is assessment.chosen else other
            filled = colour if row is assessment.chosen else "white"
            # The bare network gains nothing over itself, for sure.
            error = None if row.finalist.is_bare else [100 * INTERVAL * row.gain.gain_error]
            axis.errorbar(
                [100 * row.gain.gain], [height], xerr=error, fmt="o", color=colour, mfc=filled, markersize=5, capsize=3
            )
        axis.set_yticks(range(len(rows)), [f"{row.finalist.title}, {row.finalist.cost:.3g}×" for row in rows])
        axis.invert_yaxis()
        axis.set_xlabel(f"gain in {assessment.metric} (points)")
    return figure


def _caption(assessment: Assessment) -> str:
    return (
        f"Gain in {assessment.metric} over the bare network with its 95 % interval, on the images that chose nothing; "
        "behind each name the cost, as a multiple of the bare network. The filled point was chosen, by other images."
    )


def _columns(assessment: Assessment) -> tuple[str, ...]:
    """The heads of the table; of a segmentor with the pixel accuracy beside the mIoU."""
    metric = assessment.metric
    pixels = ("pixel accuracy (%)",) if isinstance(assessment.bare.judging, PixelFigures) else ()
    return (
        *("clip", "frames", "cost", f"{metric} where it was chosen (%)", f"{metric} (%)", "gain (points)"),
        *pixels,
        *("cross-entropy", "after temperature scaling", "gain after scaling"),
        *("calibration error (%)", "after temperature scaling (%)"),
    )


def _table(assessment: Assessment) -> str:
    """All rows, the chosen one marked."""
    rows = [_cells(row, chosen=row is assessment.chosen) for row in assessment.rows]
    others = len(assessment.rows) - 2
    note = (
        f'<p class="note">{_head(assessment.metric)}, gain, cross-entropy and calibration: on '
        f"{assessment.bare.gain.images} images that "
        "chose nothing; ± is the half width of the 95 % interval, paired over these images. The row that the searches "
        f"chose is marked; the intervals of the {max(others, 0)} others hold for each alone, and the best of them is "
        "flattered by being the best.</p>"
    )
    columns = _columns(assessment)
    table = table_html(columns, rows, numbers=range(_FIRST_NUMBER, len(columns)))
    return f"{table}{note}"


def _head(metric: str) -> str:
    """The metric where a sentence begins."""
    return metric.capitalize() if metric.islower() else metric


def _cells(row: Row, *, chosen: bool) -> tuple[str, ...]:
    finalist, gain = row.finalist, row.gain
    scaled = ""
    if gain.scaled_loss_gain is not None and gain.scaled_loss_gain_error is not None:
        scaled = f"{gain.scaled_loss_gain:+.4f} ± {INTERVAL * gain.scaled_loss_gain_error:.4f}"
    bare = finalist.is_bare
    frames = finalist.genotype
    if "|" not in frames and not bare:  # a set of frames shows how many there are
        frames += f", T = {finalist.T}" + ("" if finalist.is_listed else f", {finalist.schedule}")
    if finalist.clip_at is not None:
        frames += f", at {finalist.clip_at}"
    return (
        finalist.title + (" ← chosen" if chosen else ""),
        frames + ("" if finalist.aggregate == "mean" else f", {finalist.aggregate}"),
        f"{finalist.cost:.3g}",
        f"{100 * row.choosing.accuracy:.2f}",
        f"{100 * row.judging.accuracy:.2f}",
        "" if bare else f"{100 * gain.gain:+.2f} ± {100 * INTERVAL * gain.gain_error:.2f}",
        *([f"{100 * row.judging.pixel_accuracy:.2f}"] if isinstance(row.judging, PixelFigures) else []),
        f"{row.judging.loss:.4f}",
        f"{row.judging.scaled_loss:.4f}",
        "" if bare else scaled,
        f"{100 * row.judging.calibration_error:.2f}",
        f"{100 * row.judging.scaled_calibration_error:.2f}",
    )


def _tuned(tuning: Tuning, heads: Sequence[str]) -> str:
    """The fine-tuned networks, and what the clip adds to fine-tuning."""
    rows = [_cells(row, chosen=False) for row in tuning.rows]
    columns = [
        name if number != _CHOSEN_ON else "accuracy where temperatures were fitted (%)"
        for number, name in enumerate(heads)
    ]
    note = (
        f"{tuning.sentence()} Gains in the table are over the network as it came. One training stands behind each row: "
        "the intervals are of the images alone. Images were neither cropped nor mirrored in training."
    )
    return f'{table_html(columns, rows, numbers=range(_FIRST_NUMBER, len(columns)))}<p class="note">{escape(note)}</p>'


def _times(assessment: Assessment) -> str:
    """Latency and throughput of the bare network and of the chosen clip."""
    rows = []
    for row in dict.fromkeys((assessment.bare, assessment.chosen)):
        if row.single is not None and row.batched is not None:
            rows.append(
                (
                    row.finalist.title,
                    _spread(row.single.ms_per_image, row.single_ms),
                    f"{1000 / row.batched.ms_per_image:,.0f}",
                    f"{row.single.macs_per_image:,.0f}",
                    f"{row.batched.peak_mib_per_image:.3g}",
                )
            )
    columns = (
        "network",
        "ms for one image",
        f"images per second, {assessment.batch} at once",
        "multiply-accumulates per image",
        "peak MiB per image",
    )
    table = table_html(columns, rows, numbers=range(1, 5))
    note = "Medians of repeated passes on this machine, the networks in turn; in brackets: the range of the rounds."
    return f'{table}<p class="note">{note}</p>'


def _spread(median: float, rounds: Sequence[float]) -> str:
    """Milliseconds, and those of the fastest and the slowest round."""
    return f"{median:.3g} ({min(rounds):.3g} … {max(rounds):.3g})" if rounds else f"{median:.3g}"


def _reading(assessment: Assessment) -> list[str]:
    """What the words of the page mean."""
    return [
        "Bare network: your model as it is. A clip: the frames that the model sees of one image; its predictions of "
        "them are averaged. The best chain: the best of those that were ranked, over numbers of frames, schedules, "
        "paddings and averages. The best set of frames: frames chosen greedily, one after the other.",
        "Cost: how often the network runs for one image. Cross-entropy in nats, lower is better. Calibration error: "
        "how far the confidence of the answers is from how often they are right (expected calibration error, 15 "
        "bins).",
        "Temperature scaling divides the logits by one number, which was fitted on the images that chose: "
        f"{assessment.temperature:.3f} for the bare network. It costs nothing, changes no answer, and is the fair "
        "control of a gain in cross-entropy.",
        f"The images that chose: {assessment.bare.choosing.images}; those that judged: {assessment.bare.gain.images}. "
        "Of all clips the cheapest was taken whose cross-entropy after scaling and whose accuracy are within one "
        "standard error of the best one's.",
    ]
