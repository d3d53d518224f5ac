"""What the tests of the reproduction share."""

import pytest
from quick_costs import quick_costs
from quick_figures import quick_figures

quick = pytest.fixture(autouse=True, scope="module")(quick_costs)
undrawn = pytest.fixture(autouse=True, scope="module")(quick_figures)
