"""How accuracies and costs are printed."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from image2video.search import Ranking
from image2video.training import Cost, Metrics

_RANKS_SHOWN = 10


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
        gain = f"{100 * entry.gain:+.2f} ± {100 * entry.gain_error:.2f}" if entry.genotype.chain else "–"
        cost = () if not with_cost or entry.macs is None else (f"{entry.macs / 1e6:,.1f} M",)
        table.add_row(str(entry.genotype), f"{100 * entry.accuracy:.2f}", gain, f"{entry.loss:.4f}", *cost)
    return table
