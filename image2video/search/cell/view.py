"""Images as a network sees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from image2video.inject.clip_hook import PlaceMaker


class View(NamedTuple):
    """A batch as it goes into the network, with the way back.

    Args:
        inputs: the clip `(B, T, C, H, W)`, or the images `(B, C, H, W)` where the clip begins inside of the network.
        unwarp: brings maps of frames `(B·T, K, h, w)` back to the images and averages them: `(B, K, h, w)`.
        maker: what makes frames at places inside of the network; None where there are none.
    """

    inputs: Tensor
    unwarp: Callable[[Tensor], Tensor]
    maker: PlaceMaker | None = None
