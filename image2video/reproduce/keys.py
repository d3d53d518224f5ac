"""The key of a run: a hash of everything that makes it, so that results of other settings are never mixed."""

from __future__ import annotations

import dataclasses
import hashlib
import json

from image2video.reproduce.spec import Cell, Setting
from image2video.version import RUNS_SINCE

_NOT_HASHED = ("seeds", "more_seeds", "hours", "machine", "device")
"""Fields of a setting that may differ between runs that are compared: how many seeds there are, where they ran."""
_NOT_HASHED_UNSET = ("steps", "elsewhere", "weights", "padding", "rank_space", "redraw", "measures")
"""Fields that count only where they are set, so that results from before they existed keep their keys."""
_ARM_UNSET = ("sites", "clip_at", "ranked_for", "pose")
"""Fields of an arm that count only where they are set, likewise."""
_SHOWN = ("name", "title", "group", "pool", "scales", "start", "ranked_for")
"""Fields of an arm that do not count: its names, its place, and the arm whose weights it needs, which counts by its own
key."""


def run_key(setting: Setting, arm: Cell, start: str | None = None, version: str = RUNS_SINCE) -> str:
    """The key of an arm's runs with a setting.

    Titles, groups and the number of seeds do not count, so tables share runs. A field that is added to `Setting` or
    `Cell` changes all keys and so parts earlier results from new ones, unless it is left out where it has its default.

    Args:
        setting: of the row; of `elsewhere`, only what the arm asks for counts.
        arm: the arm.
        start: the key of the arm whose weights this one needs, to start from or to rank a clip for.
        version: since which runs are comparable.

    Returns:
        12 hexadecimal digits.
    """
    other_data = arm.genotype.partition("@")[2]
    elsewhere = {name: fields for name, fields in setting.elsewhere.items() if name == other_data}
    fields = dataclasses.asdict(dataclasses.replace(setting, elsewhere=elsewhere))
    left_out = {*_NOT_HASHED, *(name for name in _NOT_HASHED_UNSET if not fields[name])}
    told = {name: value for name, value in fields.items() if name not in left_out}
    unset = {name for name in _ARM_UNSET if getattr(arm, name) is None}
    asked = {name: value for name, value in dataclasses.asdict(arm).items() if name not in {*_SHOWN, *unset}}
    if arm.ranked_for is not None:
        start = f"ranked for {start}"  # to start from the same weights is something else
    text = json.dumps([told, asked, start, version], sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
