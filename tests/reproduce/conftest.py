"""What the tests of the reproduction share."""

import pytest
from quick_costs import quick_costs

quick = pytest.fixture(autouse=True, scope="module")(quick_costs)
