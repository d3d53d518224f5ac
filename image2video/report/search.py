"""The report of a search as one HTML page: what was found, how decided it is, and whether it beats a random clip."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from image2video.clip.deep_clip import DeepClip
from image2video.clip.deep_text import is_deep_text
from image2video.clip.frame_set import FrameSet
from image2video.clip.genotype import Genotype, Transform
from image2video.clip.genotype_text import FRAME_BAR
from image2video.clip.ops.registry import get_op
from image2video.report.curves import entropy_figure
from image2video.report.html import accuracy_html, search_sections
from image2video.report.page import Section, document, facts_list, figure_html, table_html, write_page
from image2video.report.result import ComparisonResult
from image2video.report.search_report import COMPARE, Decision, RankedChain, SearchReport
from image2video.report.table import genotype_text
from image2video.report.verdict import Verdict, signed, verdict_sentence, verdicts

RANDOM = "random"
"""The contrast of a comparison that asks whether the search is better than a random draw."""
_RANKS_SHOWN = 20


def write_search_report(path: str | Path, report: SearchReport, *, film: Figure | None = None) -> Path:
    """Write the report of a search.

    Args:
        path: of the file.
        report: the outcome of the search.
        film: the strip of sample images (`film_figure`).

    Returns:
        The path.
    """
    return write_page(path, search_report_html(report, film=film))


def search_report_html(report: SearchReport, *, film: Figure | None = None) -> str:
    """The report of a search as one HTML document; figures are base64 SVG, pictures base64 PNG.

    Args:
        report: the outcome of the search.
        film: the strip of sample images (`film_figure`).

    Returns:
        The document.
    """
    found = [f"{genotype_text(report.genotype)}: {chain_in_words(report.genotype)}. {report.sentence}"]
    if report.decisions:
        found.append(decided_sentence(report))
    found.append(random_sentence(report.comparison, report.what_tells))
    sections = []
    if film is not None:
        text = "Images of the training set as clips, one per row; the outline is the image's border in each frame."
        sections.append(Section("The clip", figure_html(film, text, picture=True)))
    if report.comparison is not None:
        asked = "Is it better than random?" if random_verdict(report.comparison) else "Final networks, trained alike"
        sections.append(Section(asked, _comparison(report.comparison)))
    if report.curve:
        sections.append(Section("Gain against the number of frames", _curve(report)))
    if report.ranking:
        sections.append(Section("Ranked chains", _ranking(report)))
    if report.decisions:
        sections.append(Section("How decided is it?", _decisions(report)))
    cells = [("", report.search)] if report.search is not None else list(report.places)
    for place, cell in cells:
        if len(cell.epochs) > 1:
            sections += search_sections(cell, place)
    if len(report.entropy) > 1 and cells:
        text = "Mean entropy of τ over the edges. Dotted: equal weights. Near it, τ has hardly preferred anything."
        figure = entropy_figure(cells[0][1].epochs, report.entropy, len(cells[0][1].ops))
        sections.append(Section("Entropy of τ", figure_html(figure, text)))
    sections.append(Section("What it cost", facts_list(report.cost)))
    sections.append(Section("How this was made", facts_list(report.facts)))
    return document(report.title, found, sections)


def chain_in_words(genotype: str) -> str:
    """What one step of the chain does.

    >>> chain_in_words("translate_x(0.06) > scale(1.1)")
    'from step to step translate_x by 0.06 of the width, then scale by a factor of 1.1'
    >>> chain_in_words("image: rotate(5) | layer2: identity")
    'at image from step to step rotate by 5 degrees; at layer2 every frame stays as it comes in'
    """
    if is_deep_text(genotype):
        sites = DeepClip.parse(genotype).sites
        return "; ".join(f"at {place} {_place_in_words(str(clip))}" for place, clip in sites)
    if FRAME_BAR in genotype:
        T = FrameSet.parse(genotype).T
        return f"{T} {'frame' if T == 1 else 'frames, each'} with a chain of its own"
    chain = Genotype.parse(genotype).chain
    if not chain:
        return "every frame is the image itself"
    return f"from step to step {', then '.join(_step(transform) for transform in chain)}"


def _place_in_words(clip: str) -> str:
    """What the clip of one place does to the frames there."""
    return "every frame stays as it comes in" if clip == "identity" else chain_in_words(clip)


def _step(transform: Transform) -> str:
    """One op and its amount in words."""
    op = transform.op
    if get_op(op).mirrors:
        return f"{op}, which mirrors every second frame"
    amount = f"{transform.magnitude:.4g}".replace("-", "−")
    if transform.unit:
        return f"{op} by {amount} {transform.unit}" + ("" if abs(transform.magnitude) == 1 else "s")
    unit = get_op(op).unit
    return f"{op} by a {unit[1:-1]} of {amount}" if unit.startswith("(") else f"{op} by {amount} {unit}"


def decided_sentence(report: SearchReport) -> str:
    """How many decisions exceed two standard errors, on the path of the genotype and in all."""
    path = [d for d in report.decisions if d.on_path]
    text = (
        f"{_count(report.decisions)} decisions of the search are decided (a gap above two standard errors), "
        f"{_count(path)} on the genotype's path."
    )
    unread = sum(d.by == "tau" for d in report.decisions)
    if unread:
        text += f" {unread} were read from τ, because the budget was spent: nothing was scored for them."
    if any(not d.decided for d in path):
        text += " What is not decided, other held-out images could turn: the genotype is one of several."
    return text


def random_sentence(comparison: ComparisonResult | None, what_tells: str = COMPARE) -> str:
    """The answer, in one sentence, to whether the genotype is better than a random clip.

    Args:
        comparison: the trained candidates; None where there are none.
        what_tells: how to find out, where random clips were not trained.

    Returns:
        The question with its answer.
    """
    question = "Is it better than a random clip?"
    verdict = random_verdict(comparison)
    if verdict is None:
        return f"{question} That was not measured; {what_tells}."
    d = verdict.difference
    clips = "a random clip" if verdict.draws == 1 else f"the mean of {verdict.draws} random clips"
    if d.n == 1:
        return f"{question} One seed does not tell ({signed(d.mean)} points against {clips})."
    answer = {"ahead": "Yes", "behind": "No, it is worse", "undecided": "Not decided"}[verdict.outcome]
    return (
        f"{question} {answer}: {signed(d.mean, 2)} ± {d.half_width:.2f} points on the test set against {clips}, "
        f"trained alike (95 % interval, {d.n} seeds)."
    )


def random_verdict(comparison: ComparisonResult | None) -> Verdict | None:
    """The verdict of the found genotype against the random clips, where they were trained."""
    found = [] if comparison is None else verdicts(comparison)
    return next((verdict for verdict in found if verdict.contrast.name == RANDOM), None)


def _count(decisions: Sequence[Decision]) -> str:
    """How many of the decisions are decided."""
    return f"{sum(d.decided for d in decisions)} of {len(decisions)}"


def _comparison(result: ComparisonResult) -> str:
    """The trained candidates, and how they were trained."""
    budget = result.settings
    return (
        f"<p>{escape(verdict_sentence(result))}</p>"
        f'<p class="note">Every network below was trained alike. Epochs: {budget.get("epochs")} (the bare one also '
        f"{budget.get('frames')} times as many, which is equal compute). Seeds: {budget.get('seeds')}. The figure is "
        "the last epoch's on the test set, which chose nothing.</p>" + accuracy_html(result)
    )


def _decisions(report: SearchReport) -> str:
    """Every decision with what came second, the gap and its error."""
    rows, digits = [], 2 if report.unit == "points" else 4
    for d in report.decisions:
        gap = "–"
        if d.gap is not None and d.error is not None:
            gap = f"{signed(d.gap, digits)} ± {d.error:.{digits}f}"
        reading = "decided" if d.decided else "not decided"
        if d.by == "tau":
            reading = "read from τ"
        place = f"{d.where} (path)" if d.on_path else d.where
        rows.append((place, genotype_text(d.kept), genotype_text(d.second or "–"), gap, str(d.images), reading))
    columns = ("edge or node", "kept", "second", f"gap, {report.unit}", "images", "is")
    what = f"held-out {report.metric}" if report.unit == "points" else "held-out loss"
    return table_html(columns, rows, numbers=(3, 4)) + (
        f'<p class="note">In the order in which they were made. Gap: how much more {what} the removal of the first '
        "costs than that of the second, ± one standard error over the images. Decided: above two. Searches with other "
        "seeds may differ by more than this.</p>"
    )


def _ranking(report: SearchReport) -> str:
    """The best chains, and the identity that they are measured against."""
    shown = list(report.ranking[:_RANKS_SHOWN])
    shown += [entry for entry in report.ranking[_RANKS_SHOWN:] if entry.genotype in ("identity", report.genotype)]
    rows = [(str(report.ranking.index(entry) + 1), *_ranked(entry, report)) for entry in shown]
    columns = ("", "chain", f"held-out {report.metric}, %", "over the identity, points", "loss", "images", "is")
    return table_html(columns, rows, numbers=(0, 2, 3, 4, 5)) + (
        f'<p class="note">{len(rows)} of {len(report.ranking)} chains; the first {report.finalists} were scored on all '
        "held-out images, the others left earlier. Gains are paired image by image over the identity (the image "
        "itself), ± one standard error; better, worse: by more than two. The best of many is flattered by its choice."
        "</p>"
    )


def _curve(report: SearchReport) -> str:
    """The best set of every number of frames."""
    rows = []
    for row in report.curve:
        gain = "–" if row.frames == 1 and row.gain_error == 0 else f"{signed(row.gain, 2)} ± {row.gain_error:.2f}"
        loss = f"{signed(row.calibrated_gain, 4)} ± {row.calibrated_error:.4f}"
        reading = "chosen" if row.chosen else ""
        rows.append((str(row.frames), genotype_text(row.added), f"{row.accuracy:.2f}", gain, loss, reading))
    columns = ("frames", "added", f"held-out {report.metric}, %", "over the image, points", "calibrated loss", "")
    what = "did not choose" if report.curve[0].judged else "chose"
    return table_html(columns, rows, numbers=(0, 2, 3, 4)) + (
        f'<p class="note">Each set has the frame added last and all above it. Scores on {report.curve[0].images} '
        f"held-out images that {what} the frames; gains are paired image by image over the image itself, ± one "
        "standard error. The calibrated loss is the cross-entropy after temperature scaling, less that of the image "
        "itself: below 0 is better.</p>"
    )


def _ranked(entry: RankedChain, report: SearchReport) -> tuple[str, ...]:
    """One ranked chain as a row without its rank."""
    identity = entry.genotype == "identity"
    gain = "–" if identity else f"{signed(entry.gain, 2)} ± {entry.gain_error:.2f}"
    chosen = " (chosen)" if (entry.genotype, entry.place) == (report.genotype, report.place) else ""
    place = "" if entry.place is None else f" at {entry.place}"
    reading = "the reference" if identity else "not decided"
    if entry.decided:
        reading = "better" if entry.gain > 0 else "worse"
    texts = (genotype_text(entry.genotype) + place + chosen, f"{entry.accuracy:.2f}", gain, f"{entry.loss:.4f}")
    return (*texts, str(entry.images), reading)
