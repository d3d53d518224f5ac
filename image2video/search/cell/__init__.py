"""The search cell: mixtures of all candidates on a small graph, and the chains that are read off it.

It stands on the spaces alone.
"""

from image2video.search.cell.cell import Cell

__all__ = ["Cell"]
