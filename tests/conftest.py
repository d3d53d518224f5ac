"""What all tests share."""

import gc


def pytest_collection_finish() -> None:
    """Garbage collection leaves out the million objects of the imported libraries: mmengine collects at every data set.

    What tests make is collected as ever.
    """
    gc.collect()
    gc.freeze()
