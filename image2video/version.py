"""The version, readable without importing torch."""

__version__ = "0.2.0"
RUNS_SINCE = "0.1.0"
"""The first version whose runs of `reproduce` may stand beside those of this one.

It counts in the keys of runs and searches, and is raised where equal settings begin to give other results.
"""
