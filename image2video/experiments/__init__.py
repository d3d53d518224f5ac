"""Fair comparisons of bare and wrapped networks: one engine for the demo, `search --compare` and the paper's tables."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
else:
    from image2video.late import late

    __getattr__, __dir__ = late(
        __name__,
        {
            "arms": (
                "Arm",
                "check_arms",
                "select_arms",
                "standard_arms",
                "standard_contrasts",
                "training_frames",
            ),
            "config": ("DemoConfig",),
            "output": ("report_path",),
            "runner": ("run_comparison", "run_demo"),
            "image2video.report": ("render_table", "verdict_sentence"),
        },
    )

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
