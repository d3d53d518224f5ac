"""What the tests of the command line share."""

from collections.abc import Iterator

import pytest
from few_digits import few_digits
from quick_costs import quick_costs
from quick_figures import quick_figures

quick = pytest.fixture(autouse=True, scope="module")(quick_costs)
few = pytest.fixture(autouse=True, scope="module")(few_digits)

MEASURED = "test_cli_rf"
"""The module whose tests hold that `train` measures the receptive fields of small images when it is done."""
DRAWN = ("test_cli", "test_cli_folders", MEASURED)
"""The modules whose tests look at figures: at their format, at what is written in them."""


@pytest.fixture(autouse=True, scope="module")
def _undrawn(request: pytest.FixtureRequest) -> Iterator[None]:
    """All other figures are written at a glance."""
    if request.module.__name__ in DRAWN:
        yield
    else:
        yield from quick_figures()


@pytest.fixture(autouse=True)
def _no_fields_after_training(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training on images of 16 pixels would take half of its time for their receptive fields."""
    if request.module.__name__ != MEASURED:
        monkeypatch.setattr("image2video.cli.train_fields.CHEAP", 0)
