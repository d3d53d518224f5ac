"""The optimisation behind a search: bilevel steps, schedules, memory.

It stands on cell, scores and state; the epochs that these steps make up stand with the run, which has the images.
"""
