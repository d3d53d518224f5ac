"""The environment of the least versions is the one that setup.cfg allows."""

import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "constraints"
MAKE = runpy.run_path(str(FOLDER / "make_oldest.py"))


def test_the_pins_are_the_lower_bounds() -> None:
    text = (FOLDER / "oldest.txt").read_text()
    assert text == MAKE["text"](), "run: python constraints/make_oldest.py"
    assert {"torch", "torchvision", "timm", "numpy"} <= {line.partition("==")[0] for line in text.splitlines()}


@pytest.mark.parametrize(
    ("requirement", "pin"),
    [
        ("torch>=2.11", "torch==2.11.*"),
        ("timm>=1.0.31", "timm==1.0.31"),
        ("pillow>=10", "pillow==10.*"),
        ("jsonargparse[signatures]>=4.35", "jsonargparse==4.35.*"),
    ],
)
def test_a_pin(requirement: str, pin: str) -> None:
    assert MAKE["least"](requirement) == pin


@pytest.mark.parametrize("requirement", ["torch", "torch<3", "torch>=2.11,<3"])
def test_a_requirement_without_a_plain_lower_bound_is_refused(requirement: str) -> None:
    with pytest.raises(SystemExit, match="expected NAME>=VERSION"):
        MAKE["least"](requirement)
