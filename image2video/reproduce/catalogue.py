"""The tables and figures that there are: one YAML file each, beside this module."""

from __future__ import annotations

import difflib
import os
from functools import cache
from pathlib import Path
from typing import Any

from image2video.errors import InputError
from image2video.reproduce.book import planned_runs
from image2video.reproduce.names import FOLDER, SCALES_FILE, experiments
from image2video.reproduce.parse import experiment_from
from image2video.reproduce.spec import SCALES, Experiment
from image2video.runs.texts import user_path
from image2video.runs.yaml_text import read_yaml


def load_experiment(name: str) -> Experiment:
    """A table or figure by its name.

    Args:
        name: of a table or figure, or the path of a .yaml file of the same form.

    Returns:
        The experiment that the file states.

    Raises:
        InputError: an unknown name, with the list of all, or a file with something wrong in it.
    """
    path = user_path(name) if name.endswith(".yaml") else FOLDER / f"{name}.yaml"
    if not os.path.isfile(path) or path == FOLDER / f"{SCALES_FILE}.yaml":
        near = difflib.get_close_matches(name[:100], experiments(), n=1)
        hint = f"did you mean {near[0]}? There" if near else "there"
        raise InputError(
            f"unknown table {name!r:.80}; {hint} are {', '.join(experiments())}, or a .yaml file of your own"
        )
    return experiment_from(_read(path), path.stem, _read(FOLDER / f"{SCALES_FILE}.yaml"))


@cache
def starting_arms() -> frozenset[str]:
    """The names of the arms that others start from, in any table: tables share runs, so all of them keep weights."""
    found: set[str] = set()
    for name in experiments():
        found |= {arm.needed for arm in load_experiment(name).arms if arm.needed is not None}
    return frozenset(found)


@cache
def drawn_runs() -> frozenset[tuple[str, int]]:
    """Key and seed of every run whose weights a figure is drawn with, so that tables that share the run keep them."""
    found: set[tuple[str, int]] = set()
    for name in experiments():
        experiment = load_experiment(name)
        for scale in SCALES:
            found |= {(run.key, run.seed) for run in planned_runs(experiment, scale) if run.drawn}
    return frozenset(found)


def _read(path: Path) -> Any:
    return read_yaml(path, "table")
