"""Selections: how a cell becomes one chain. Each of these modules registers its own.

Selections stand above spaces, cell, scores, state and rankings. They see a search through `selection.Run` alone, so
nothing here knows the run, the driver or how a network is trained.
"""

from image2video.search.select import controls as controls
from image2video.search.select import perturbation as perturbation
from image2video.search.select import ranked as ranked
