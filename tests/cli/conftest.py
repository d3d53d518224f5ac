"""What the tests of the command line share."""

from collections.abc import Iterator

import pytest
from quick_costs import quick_costs
from quick_figures import quick_figures

quick = pytest.fixture(autouse=True, scope="module")(quick_costs)

DRAWN = "test_cli_rf"
"""The module whose tests hold that `train` measures the receptive fields of small images when it is done."""


@pytest.fixture(autouse=True, scope="module")
def _undrawn(request: pytest.FixtureRequest) -> Iterator[None]:
    """Figures are written at a glance, but for those of receptive fields."""
    if request.module.__name__ == DRAWN:
        yield
    else:
        yield from quick_figures()


@pytest.fixture(autouse=True)
def _no_fields_after_training(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training on images of 16 pixels would take half of its time for their receptive fields."""
    if request.module.__name__ != DRAWN:
        monkeypatch.setattr("image2video.cli.train_fields.CHEAP", 0)
