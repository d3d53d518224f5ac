"""Writes constraints/oldest.txt, the least versions that setup.cfg allows: python constraints/make_oldest.py

`make test-oldest` installs them into an environment of its own. A bound of two numbers, such as 2.11, stands for every
patch of it.
"""

from __future__ import annotations

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("export",)
"""Extras whose least versions are tested too; those of the others need newer versions of what they share with us."""


def least(requirement: str) -> str:
    """The pin of a requirement's lower bound: `torch>=2.11` gives `torch==2.11.*`."""
    match = re.fullmatch(r"([\w.-]+)(?:\[\w+\])?>=([\d.]+)", requirement)
    if match is None:
        raise SystemExit(f"expected NAME>=VERSION in setup.cfg, got {requirement}")
    name, version = match.groups()
    return f"{name}=={version}" if version.count(".") >= 2 else f"{name}=={version}.*"


def text() -> str:
    """The whole file."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    required = config["options"]["install_requires"].split()
    for extra in EXTRAS:
        required += config["options.extras_require"][extra].split()
    return "\n".join(["# Written by `python constraints/make_oldest.py` from setup.cfg.", *map(least, required)]) + "\n"


if __name__ == "__main__":
    (ROOT / "constraints" / "oldest.txt").write_text(text(), encoding="utf-8")
