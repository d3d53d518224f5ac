"""What the tests of comparisons share."""

import pytest
from few_digits import few_digits
from quick_costs import quick_costs
from quick_figures import quick_figures

quick = pytest.fixture(autouse=True, scope="module")(quick_costs)
few = pytest.fixture(autouse=True, scope="module")(few_digits)
undrawn = pytest.fixture(autouse=True, scope="module")(quick_figures)
