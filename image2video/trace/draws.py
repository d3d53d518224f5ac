"""The random streams of Python and numpy, given back as they were."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def streams_kept() -> Iterator[None]:
    """Give the global streams of Python's `random` and of numpy back as they were before the `with` block.

    A network may draw from either (LayerDrop, a path that is chosen); numpy's is looked at where numpy is loaded.
    """
    state = random.getstate()
    numpy = sys.modules.get("numpy.random")
    of_numpy = None if numpy is None else numpy.get_state()
    try:
        yield
    finally:
        random.setstate(state)
        if numpy is not None:
            numpy.set_state(of_numpy)
