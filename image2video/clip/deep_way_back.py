"""The way back of frames that were moved at several places of a network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from image2video.clip.checks import check_size
from image2video.clip.deep_clip import DeepClip
from image2video.clip.matrices import conjugated
from image2video.clip.options import ClipOptions
from image2video.clip.sampling import in_order, matrix_device, warp_frames
from image2video.clip.way_back import WayBack
from image2video.trace.capture import constant

Sizes = tuple[tuple[int, int] | None, ...]
"""For each place, (h, w) of the map whose cells magnitudes in cells mean; None for the pixels of the image."""


class DeepWayBack(WayBack):
    """The way back by the product of the matrices of all places.

    Where a later place brings back what an earlier one has moved out, padding stands there, and no part of the image:
    such positions count as not seen.

    It is no module, since compiled graphs can make none.

    Args:
        genotype: the clip at several places.
        options: how frames are made.
        sizes: of the maps at the places.
    """

    genotype: DeepClip  # type: ignore[assignment]  # it has what a way back asks a clip for
    cells: Sizes | None  # type: ignore[assignment]  # one size for each place

    def __init__(self, genotype: DeepClip, options: ClipOptions, sizes: Sizes) -> None:
        self.genotype, self.options, self.cells = genotype, options, sizes

    def _unwarp(
        self, clip: Tensor, steps: tuple[float, ...], image_size: tuple[int, int], padding: str = "zeros"
    ) -> Tensor:
        """Bring maps `(B, S, K, h, w)` of the frames back to the image; lost positions are zero, as those outside."""
        if padding == "zeros":
            kept = self._kept(clip, steps, image_size)
            clip = clip if kept is None else clip * kept
        return super()._unwarp(clip, steps, image_size, padding)

    def _kept(self, clip: Tensor, steps: Sequence[float], image_size: tuple[int, int]) -> Tensor | None:
        """Return how much of each position of the frames' maps came from within at the later places.

        `(1, S, 1, h, w)`, or None where all of it did. What comes in from outside at the first place alone is never
        read on the way back.
        """
        height, width = check_size(image_size, "image_size")
        h, w = clip.shape[-2:]
        later = list(zip(self.genotype.clips, self._sizes(), strict=True))[1:]
        frames: list[Tensor] | None = None
        for place, cells in later:
            mirrored = [place.mirrored(step) for step in steps]
            moved = [s for s, axes in enumerate(mirrored) if axes is None]
            if not moved:
                frames = None if frames is None else in_order(mirrored, frames, ())
                continue
            if frames is None:
                frames = [clip.new_ones((1, 1, h, w)) for _ in steps]
            powers = [steps[s] for s in moved]
            matrices = place.step_matrices(powers, height, width, matrix_device(clip), cells=cells)
            matrices = constant(conjugated, matrices, h / height, w / width)
            found = warp_frames(torch.stack([frames[s] for s in moved]), matrices)
            frames = in_order(mirrored, frames, found.unbind(0))
        return None if frames is None else torch.stack(frames, dim=1)

    def _sizes(self) -> Sizes:
        return (None,) * len(self.genotype.sites) if self.cells is None else self.cells
