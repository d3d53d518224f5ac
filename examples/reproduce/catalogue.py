"""The tables and figures that there are: one YAML file each, beside this module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from image2video.errors import InputError
from image2video.reproduce.spec import Experiment, experiment_from

FOLDER = Path(__file__).parent
_SCALES = "scales"


def experiments() -> tuple[str, ...]:
    """The names of all tables and figures."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != _SCALES))


def load_experiment(name: str) -> Experiment:
    """A table or figure by its name, or the path of a .yaml file of the same form.

    Raises `InputError` for an unknown name, with the list of all.
    """
    path = Path(name) if name.endswith(".yaml") else FOLDER / f"{name}.yaml"
    known = experiments()
    if not path.is_file() or path.stem == _SCALES:
        raise InputError(f"unknown table {name!r}; there are {', '.join(known)}, or a .yaml file of your own")
    return experiment_from(_read(path), path.stem, _read(FOLDER / f"{_SCALES}.yaml"))


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"{path} is no YAML: {error}") from error
