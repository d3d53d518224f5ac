"""Fair comparisons of bare and wrapped networks: one engine for the demo, `search --compare` and the paper's tables."""

from image2video.experiments.arms import (
    Arm,
    check_arms,
    select_arms,
    standard_arms,
    standard_contrasts,
    training_frames,
)
from image2video.experiments.config import DemoConfig
from image2video.experiments.output import report_path
from image2video.experiments.runner import run_comparison, run_demo
from image2video.report import render_table, verdict_sentence

__all__ = [
    "Arm",
    "DemoConfig",
    "check_arms",
    "render_table",
    "report_path",
    "run_comparison",
    "run_demo",
    "select_arms",
    "standard_arms",
    "standard_contrasts",
    "training_frames",
    "verdict_sentence",
]
