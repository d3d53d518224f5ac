"""How good a network is on held-out images: the tasks, scores and their errors, over all processes.

It knows nothing of spaces and cells: a variant that is scored is just something that gives predictions.
"""
