"""The size of a network that a check has built."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """The size of an arm's network.

    Attributes:
        input_size: (C, H, W) of its images.
        classes: how many it tells apart.
        sites: how many fusions it holds.
        parameters: how many there are.
        macs: multiply-accumulates of one image, all frames of its clip, counted as `measure_cost` counts them.
        steps: those of its training where a mmsegmentation config counts them, None where epochs do.

    """

    input_size: tuple[int, int, int]
    classes: int
    sites: int
    parameters: int
    macs: float
    steps: int | None = None
