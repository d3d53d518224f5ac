"""The names of the fusions that come with the library; the help of the command line lists them without torch."""

BUILT_IN = ("gsf", "tsm", "gsm", "conv3d", "none")
"""In the order of the registry, which knows what they are."""
