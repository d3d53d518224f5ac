"""How many frames an assessment of a segmentor may look at in the time that it is given."""

from __future__ import annotations

from dataclasses import dataclass

from image2video.assess.scoring import ROUNDS, TIMED
from image2video.assess.searches import FEW
from image2video.assess.segmentor.searches import FIRST, SEARCHES
from image2video.errors import InputError

_SPARE = 0.9
"""The share of the minutes that is planned."""
_TIMING = 0.1
"""The share of it that may go into more than one round of timing."""
_UNTIMED = 4
"""Passes of `measure_cost` beside those that it times: one counts, two warm up, one is watched for its memory."""


@dataclass(frozen=True)
class Budget:
    """The frames of an assessment that is to take about so many minutes.

    Attributes:
        minutes: that were asked for.
        ends: frames that are scored whatever the searches do, the bare network's among them.
        choosing: images that choose.
        batch: images of a batch whose time is measured.
        most: frames of an image at most.
    """

    minutes: float
    ends: int
    choosing: int
    batch: int
    most: int

    @property
    def searches(self) -> int:
        """The fewest frames that the searches need: their first rounds are whole."""
        return SEARCHES * FEW * min(FIRST, self.choosing)

    @property
    def timing(self) -> int:
        """Frames of one round of timing, of the bare network and of a clip, alone and in a batch."""
        return (_UNTIMED + TIMED) * (1 + self.batch) * (1 + self.most)

    def check(self, seconds: float) -> None:
        """Raise `InputError` where frames of so many seconds each do not fit into the time."""
        least = self.ends + self.searches + self.timing
        if self._frames(seconds) < least:
            raise InputError(
                f"minutes={self.minutes:g} is too little for these images; give at least "
                f"{least * seconds / 60 / _SPARE:.2g}, or fewer images (max_images)"
            )

    def plan(self, seconds: float) -> tuple[int, int]:
        """Frames for the searches, and rounds of timing: one where more would take a tenth of the time."""
        whole = self._frames(seconds)
        rounds = next((n for n in range(ROUNDS, 1, -1) if n * self.timing <= _TIMING * whole), 1)
        return max(self.searches, whole - self.ends - rounds * self.timing), rounds

    def _frames(self, seconds: float) -> int:
        return int(_SPARE * self.minutes * 60 / seconds)
