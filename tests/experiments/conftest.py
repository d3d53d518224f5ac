"""What the tests of comparisons share."""

import pytest
from quick_costs import quick_costs

quick = pytest.fixture(autouse=True, scope="module")(quick_costs)
