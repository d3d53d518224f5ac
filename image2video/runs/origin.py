"""The run that weights come from: found by the `run.json` beside them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from image2video.runs.folders import RUN_FILE
from image2video.runs.texts import read_json

BEST = "best.safetensors"
_KIND = "train"


def run_behind(weights: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]] | None:
    """Find the training run that weights belong to.

    Args:
        weights: the folder of a run, or a file or folder that the run lists as its own in `run.json`, such as
            `best.safetensors` or `pretrained`.

    Returns:
        The folder of the run and what its `run.json` says; None for weights of no run that is known.

    Raises:
        InputError: a `run.json` that cannot be read.
    """
    path = Path(weights).expanduser()
    for folder, name in ((path, None), (path.parent, path.name)):
        if not (folder / RUN_FILE).is_file():
            continue
        record = read_json(folder / RUN_FILE)
        if not isinstance(record, dict) or record.get("kind") != _KIND:
            continue
        if name is None or name in (record.get("contents") or ()):
            return folder, record
    return None
