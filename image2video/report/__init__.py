"""Figures, tables and a self-contained HTML page from result JSON; nothing here trains."""

from image2video.report.cell import cell_figure
from image2video.report.curves import entropy_figure, learning_figure, scores_figure, tau_figure
from image2video.report.depth import depth_figure
from image2video.report.erf_panel import ErfGrid, ErfPanel
from image2video.report.field_page import FieldReport, field_tables, fields_html, write_field_page
from image2video.report.fields import fields_figure, variance_square
from image2video.report.film import film_figure, film_strip
from image2video.report.html import Opening, report_html, write_report
from image2video.report.receptive_field import comparison_figure, erf_caption, erf_figure, save_figure
from image2video.report.result import ArmRuns, ComparisonResult, Contrast, CurvePoint, Run, SearchRecord
from image2video.report.search import random_sentence, search_report_html, write_search_report
from image2video.report.search_report import CurveRow, Decision, RankedChain, SearchReport
from image2video.report.segmentation import SegmentedImage, image_iou, most_different, segmentation_figure
from image2video.report.stats import Interval, mean_interval, paired_difference, pooled_difference
from image2video.report.table import arm_rows, render_table
from image2video.report.verdict import Verdict, verdict_sentence, verdicts

__all__ = [
    "ArmRuns",
    "ComparisonResult",
    "Contrast",
    "CurvePoint",
    "CurveRow",
    "Decision",
    "ErfGrid",
    "ErfPanel",
    "FieldReport",
    "Interval",
    "Opening",
    "RankedChain",
    "Run",
    "SearchRecord",
    "SearchReport",
    "SegmentedImage",
    "Verdict",
    "arm_rows",
    "cell_figure",
    "comparison_figure",
    "depth_figure",
    "entropy_figure",
    "erf_caption",
    "erf_figure",
    "field_tables",
    "fields_figure",
    "fields_html",
    "film_figure",
    "film_strip",
    "image_iou",
    "learning_figure",
    "mean_interval",
    "most_different",
    "paired_difference",
    "pooled_difference",
    "random_sentence",
    "render_table",
    "report_html",
    "save_figure",
    "scores_figure",
    "search_report_html",
    "segmentation_figure",
    "tau_figure",
    "variance_square",
    "verdict_sentence",
    "verdicts",
    "write_field_page",
    "write_report",
    "write_search_report",
]
