"""The schedules of a mmengine config over another number of steps."""

from __future__ import annotations

from typing import Any

from image2video.errors import UnsupportedError
from image2video.integrations.openmmlab.search_config import type_name

_STEPS = ("begin", "end", "T_max", "step_size", "total_steps", "total_iters")
_SHORTEST = 2


def stretch(config: Any, steps: int) -> None:
    """Let a config train for `steps` steps: every length in its schedules is stretched by the same factor.

    A part of a schedule that becomes shorter than two steps is left out. Raises `UnsupportedError` for a schedule by
    epochs.
    """
    before = int(config.train_cfg.max_iters)
    config.train_cfg.max_iters = steps
    if steps == before:
        return
    schedules = config.get("param_scheduler") or []
    found = [_stretched(one, before, steps) for one in (schedules if isinstance(schedules, list) else [schedules])]
    config.param_scheduler = [one for one in found if "end" not in one or one["end"] - one.get("begin", 0) >= _SHORTEST]


def _stretched(schedule: Any, before: int, steps: int) -> dict[str, Any]:
    """A schedule with all of its lengths in proportion."""
    if schedule.get("by_epoch", True):
        kind = type_name(schedule.get("type"))
        raise UnsupportedError(
            f"param_scheduler {kind} counts epochs; needed by_epoch=False, so that it can be stretched"
        )

    def scaled(count: int) -> int:
        return round(count * steps / before)

    found = dict(schedule)
    for key in _STEPS:
        if isinstance(found.get(key), int):
            found[key] = scaled(found[key])
    if "step_size" in found:
        found["step_size"] = max(1, found["step_size"])
    for key in ("milestones", "periods"):
        if key in found:
            found[key] = [scaled(count) for count in found[key]]
    return found
