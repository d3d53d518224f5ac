"""Figures, tables and a self-contained HTML page from result JSON; nothing here trains."""

from image2video.report.cell import cell_figure
from image2video.report.curves import learning_figure, scores_figure, tau_figure
from image2video.report.film import film_figure, film_strip
from image2video.report.html import report_html, write_report
from image2video.report.result import ArmRuns, ComparisonResult, Contrast, CurvePoint, Run, SearchRecord
from image2video.report.stats import Interval, mean_interval, paired_difference
from image2video.report.table import arm_rows, render_table
from image2video.report.verdict import Verdict, verdict_sentence, verdicts

__all__ = [
    "ArmRuns",
    "ComparisonResult",
    "Contrast",
    "CurvePoint",
    "Interval",
    "Run",
    "SearchRecord",
    "Verdict",
    "arm_rows",
    "cell_figure",
    "film_figure",
    "film_strip",
    "learning_figure",
    "mean_interval",
    "paired_difference",
    "render_table",
    "report_html",
    "scores_figure",
    "tau_figure",
    "verdict_sentence",
    "verdicts",
    "write_report",
]
