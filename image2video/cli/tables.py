"""How accuracies and costs are printed."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from image2video.assess import Assessment
from image2video.search import FrameChoice, RankedGenotype, Ranking
from image2video.search.rank.gain import INTERVAL
from image2video.training import Cost, Metrics

_RANKS_SHOWN = 10
_OPTIONS = ("place", "T", "schedule", "padding", "aggregate")


def metrics_table(title: str, rows: Sequence[tuple[str, Metrics]]) -> Table:
    """One line per (name, metrics); top-1 in percent, for segmentation mIoU and the share of pixels right."""
    table = Table(title=title, title_justify="left")
    table.add_column("weights")
    segmented = any(metrics.miou is not None for _, metrics in rows)
    scores = ("mIoU %", "pixels right %") if segmented else ("top-1 %",)
    for name in (*scores, "loss", "images"):
        table.add_column(name, justify="right")
    for name, metrics in rows:
        shares = [metrics.score, metrics.top1] if segmented else [metrics.top1]
        table.add_row(name, *(f"{100 * share:.2f}" for share in shares), f"{metrics.loss:.4f}", str(metrics.n))
    return table


def cost_line(cost: Cost) -> str:
    """The cost of one image, in words."""
    return (
        f"one image costs {cost.macs_per_image / 1e6:,.1f} M MACs, {cost.ms_per_image:.2f} ms and "
        f"{cost.peak_mib_per_image:.1f} MiB, with {cost.params:,} parameters"
    )


def ranking_table(ranking: Ranking) -> Table:
    """The best chains of a ranking, and the identity for comparison; one standard error beside each gain."""
    table = Table(title=f"chains ranked on {ranking.images} held-out images", title_justify="left")
    table.add_column("genotype", overflow="fold")
    metric = "top-1" if ranking.metric == "accuracy" else ranking.metric
    with_cost = all(entry.macs is not None for entry in ranking.entries)
    for name in (f"{metric} %", "gain over identity", "loss", *(("MACs / image",) if with_cost else ())):
        table.add_column(name, justify="right", overflow="fold")
    shown = list(ranking.entries[: min(_RANKS_SHOWN, ranking.finalists)])
    if ranking.identity not in shown:
        shown.append(ranking.identity)
    for entry in shown:
        gain = f"{100 * entry.gain:+.2f} ± {100 * entry.gain_error:.2f}" if not entry.is_still else "–"
        cost = () if not with_cost or entry.macs is None else (f"{entry.macs / 1e6:,.1f} M",)
        table.add_row(_clip_text(entry, ranking), f"{100 * entry.accuracy:.2f}", gain, f"{entry.loss:.4f}", *cost)
    return table


def front_lines(ranking: Ranking) -> list[str]:
    """Gain against cost, a line for every cost; none where there was one only."""
    front = [entry for entry in ranking.front if not entry.is_still]
    if len(front) < 2:
        return []
    inside = any(entry.place is not None for entry in front)
    cost = "multiples of the bare network" if inside else "frames per image"
    lines = [f"gain against cost ({cost}; one standard error):"]
    for entry in front:
        gain = f"{100 * entry.gain:+.2f} ± {100 * entry.gain_error:.2f}"
        lines.append(f"  {entry.cost:.3g}: {gain} points, {_clip_text(entry, ranking)}")
    return lines


def curve_table(choice: FrameChoice) -> Table:
    """Gain against the number of frames; on the images that chose nothing, where there are some."""
    point = choice.best_point
    images = point.scores.images
    which = "chose them" if point.judging is None else "chose nothing"
    title = (
        f"frames chosen one by one, of {choice.candidates}, {point.aggregate}; scores on {images} images that {which}"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("frames", justify="right")
    table.add_column("added", overflow="fold")
    for name in ("top-1 %", "gain over the image", "calibrated loss", ""):
        table.add_column(name, justify="right", overflow="fold")
    for entry in choice.curve:
        scores = entry.scores
        gain = f"{100 * scores.gain:+.2f} ± {100 * scores.gain_error:.2f}"
        loss = f"{scores.calibrated_gain:+.4f} ± {scores.calibrated_gain_error:.4f}"
        chosen = "chosen" if entry is point else ""
        added = str(entry.frames.frames[-1])
        table.add_row(str(entry.T), added, f"{100 * scores.accuracy:.2f}", gain, loss, chosen)
    return table


def assessment_table(assessment: Assessment) -> Table:
    """The clips of an assessment, on the images that chose nothing; the chosen one marked."""
    images = assessment.bare.gain.images
    title = f"on {images} images that chose nothing; ← was chosen by the others; ±: half of the 95 % interval"
    table = Table(title=title, title_justify="left")
    table.add_column("clip", overflow="fold")
    table.add_column("frames", overflow="fold")
    metric = "top-1" if assessment.metric == "accuracy" else assessment.metric
    for name in ("cost", f"{metric} %", "gain", "loss", "scaled", "ms"):
        table.add_column(name, justify="right", no_wrap=True)
    tuned = () if assessment.tuning is None else assessment.tuning.rows
    for row in (*assessment.rows, *tuned):
        clip, gain = row.finalist, row.gain
        chosen = " ←" if row is assessment.chosen else ""
        table.add_row(
            f"{clip.name}{chosen}",
            clip.genotype + ("" if clip.clip_at is None else f" at {clip.clip_at}"),
            f"{clip.cost:.3g}",
            f"{100 * row.judging.accuracy:.2f}",
            "–" if clip.is_bare else f"{100 * gain.gain:+.2f} ± {100 * INTERVAL * gain.gain_error:.2f}",
            f"{row.judging.loss:.4f}",
            f"{row.judging.scaled_loss:.4f}",
            "" if row.single is None else f"{row.single.ms_per_image:.1f}",
        )
    return table


def _clip_text(entry: RankedGenotype, ranking: Ranking) -> str:
    """A chain, with the options of its clip where the ranking had several to choose from."""
    clips = [other for other in ranking.entries if not other.is_still]
    several = [name for name in _OPTIONS if len({getattr(other, name) for other in clips}) > 1]
    if not several or entry.is_still:
        return str(entry.genotype)
    return f"{entry.genotype} ({', '.join(_option_text(name, entry) for name in several)})"


def _option_text(name: str, entry: RankedGenotype) -> str:
    value = getattr(entry, name)
    if name == "place":
        return f"at {'the image' if value is None else value}"
    return f"T = {value}" if name == "T" else str(value)
