"""The names of the tables and figures; listing them needs no torch."""

from pathlib import Path

FOLDER = Path(__file__).parent
SCALES_FILE = "scales"
"""Beside the tables: the sizes at which they are run."""


def experiments() -> tuple[str, ...]:
    """The names of all tables and figures.

    Returns:
        The names, sorted.
    """
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != SCALES_FILE))
