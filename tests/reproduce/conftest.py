"""What the tests of the reproduction share."""

from collections.abc import Iterator

import pytest
from few_digits import few_digits
from quick_costs import quick_costs
from quick_figures import quick_figures

quick = pytest.fixture(autouse=True, scope="module")(quick_costs)
few = pytest.fixture(autouse=True, scope="module")(few_digits)
DRAWN = "test_reproduce_run"
"""The module whose whole table is drawn."""


@pytest.fixture(autouse=True, scope="module")
def _undrawn(request: pytest.FixtureRequest) -> Iterator[None]:
    """Figures of all other tables are written at a glance."""
    if request.module.__name__ == DRAWN:
        yield
    else:
        yield from quick_figures()
