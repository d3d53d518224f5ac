"""The way back from maps of the frames to their image."""

from __future__ import annotations

import torch
from torch import Tensor

from image2video.clip.any_clip import Clip
from image2video.clip.checks import check_size
from image2video.clip.cover import covered_mean
from image2video.clip.frames import frames_to_clip
from image2video.clip.of_options import OfOptions
from image2video.clip.ops.op import working_dtype
from image2video.clip.options import ClipOptions
from image2video.clip.schedules import schedule_steps
from image2video.clip.unwarp import frame_weights, unwarp_clip
from image2video.errors import InputError, InputTypeError


class WayBack(OfOptions):
    """What brings maps of the frames of a clip back to their image; `Image2Video` inherits it.

    Attributes:
        genotype: what the frames were made by.
        cells: (h, w) of the map where the clip begins, whose cells magnitudes in cells mean; None where it begins at
            the image, whose pixels are cells.
    """

    genotype: Clip
    cells: tuple[int, int] | None = None

    def unwarp(self, maps: Tensor, image_size: tuple[int, int], T: int | None = None) -> Tensor:
        """Bring maps of the frames back to the reference image; zeros stand where a frame shows nothing.

        Maps of frames that are the image or a mirror image come back bit for bit. Interpolation is nearest where the
        module's is, and bilinear otherwise. `InputError` refuses other shapes, `InputTypeError` maps that are not
        floating point.

        Args:
            maps: `(B·T, K, h, w)`, of any size.
            image_size: (H, W) of the image that the frames were made from.
            T: frames of the clip; by default those of the module.

        Returns:
            The unwarped maps `(B, T, K, h, w)`.
        """
        return self._unwarp(self._clip_of_maps(maps, T), self._steps(T), image_size)

    def unwarp_frame(
        self, maps: Tensor, t: int, image_size: tuple[int, int], T: int | None = None, *, padding: str = "zeros"
    ) -> Tensor:
        """Bring maps of one frame back to the reference image: what `unwarp` gives at `[:, t]`.

        It serves whoever adds up frames one by one, where all of them would not fit into memory.

        Args:
            maps: of frame t, `(B, K, h, w)`.
            t: the frame.
            image_size: (H, W) of the image.
            T: frames of the clip; by default those of the module.
            padding: `"zeros"`, or `"border"` to continue the frame with its edge.

        Returns:
            The unwarped maps `(B, K, h, w)`.

        Raises:
            InputError: a t that is no frame of the clip, and whatever `unwarp` refuses.
        """
        steps = self._steps(T)
        if not 0 <= t < len(steps):
            raise InputError(f"t must be a frame of the clip, 0 … {len(steps) - 1}, got {t}")
        return self._unwarp(self._clip_of_maps(maps, 1), steps[t : t + 1], image_size, padding)[:, 0]

    def nearest_frame(self, T: int | None = None) -> int:
        """Find the frame with the smallest |s|, or the frame of a set that moves the image least.

        Args:
            T: frames of the clip; by default those of the module.

        Returns:
            Its index; the first of equals. Of a set: the first frame that is the image, else of those that change
            colours alone, else of the mirror images, else 0.
        """
        return self.genotype.nearest(self._steps(T))

    def keeps_image(self, T: int | None = None) -> bool:
        """Say whether some frame is the image or a mirror image, so that no pixel is unseen.

        Args:
            T: frames of the clip; by default those of the module.

        Returns:
            True where there is such a frame.
        """
        return any(self.genotype.mirrored(step) is not None for step in self._steps(T))

    def valid_mask(
        self,
        map_size: tuple[int, int],
        image_size: tuple[int, int],
        T: int | None = None,
        *,
        valid: Tensor | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Tell how much of every reference pixel each frame shows: the unwarped maps of ones.

        Args:
            map_size: (h, w) of the maps.
            image_size: (H, W) of the image.
            T: frames of the clip; by default those of the module.
            valid: `(B, 1, H, W)`, bool or 0 … 1, with 0 on padding; it gives every image its own valid area.
            device: of the mask; by default that of `valid`, or the CPU.
            dtype: of the mask.

        Returns:
            The mask `(T, 1, h, w)` in [0, 1], or `(B, T, 1, h, w)` with `valid`.
        """
        h, w = check_size(map_size, "map_size")
        steps = self._steps(T)
        if valid is None:
            ones = torch.ones((1, len(steps), 1, h, w), device=device, dtype=dtype)
            return self._unwarp(ones, steps, image_size)[0]
        valid = valid.to(device=device or valid.device, dtype=dtype)
        weights = frame_weights(valid, self.genotype, steps, (h, w), image_size, self.cells)
        return self._unwarp(weights, steps, image_size)

    def unwarped_mean(
        self, maps: Tensor, image_size: tuple[int, int], T: int | None = None, *, valid: Tensor | None = None
    ) -> Tensor:
        """Average maps over the frames in the reference image: Σ_t unwarp(map_t) / Σ_t mask_t.

        Sums are taken in float32 (float64 for float64 maps). Where Σ mask < 1e-3, the result is `nearest_frame`,
        unwarped with border padding. A constant map stays constant, and gradients are finite.

        Args:
            maps: `(B·T, K, h, w)`, of any size.
            image_size: (H, W) of the image.
            T: frames of the clip; by default those of the module.
            valid: the valid area of every image, as in `valid_mask`.

        Returns:
            The mean `(B, K, h, w)` in the dtype of the maps.

        Raises:
            InputError: a `valid` of another number of images, and whatever `unwarp` refuses.
        """
        clip = self._clip_of_maps(maps, T)
        steps = self._steps(T)
        clip = clip.to(working_dtype(maps))
        if valid is None:
            weights = torch.ones_like(clip[:1, :, :1])
            weighted = clip
        else:
            if valid.shape[0] != clip.shape[0]:
                raise InputError(f"valid must have the rows of {clip.shape[0]} images, got {valid.shape[0]}")
            size = (clip.shape[-2], clip.shape[-1])
            weights = frame_weights(valid.to(clip), self.genotype, steps, size, image_size, self.cells)
            weighted = clip * weights
        total = self._unwarp(weighted, steps, image_size).sum(dim=1)
        cover = self._unwarp(weights, steps, image_size).sum(dim=1)

        def nearest_frame() -> Tensor:
            t = self.nearest_frame(T)
            return self.unwarp_frame(clip[:, t], t, image_size, T, padding="border")

        # A frame that is the image itself shows every pixel.
        all_seen = valid is None and self.keeps_image(T)
        return covered_mean(total, cover, None if all_seen else nearest_frame).to(maps.dtype)

    def _steps(self, T: int | None) -> tuple[float, ...]:
        """Return the power of every frame, at this call's number of frames."""
        steps = schedule_steps(self.schedule, self.T if T is None else T)
        # The constructor has checked the module's own number of frames.
        if len(steps) != self.T and not torch.compiler.is_compiling():
            self.genotype.check_steps(steps)
        return steps

    def _clip_of_maps(self, maps: Tensor, T: int | None) -> Tensor:
        """Check maps `(B·T, K, h, w)` and reshape them to `(B, T, K, h, w)`."""
        if maps.ndim != 4:
            raise InputError(f"maps of frames must have the shape (B·T, K, h, w), got {tuple(maps.shape)}")
        if not maps.is_floating_point():
            raise InputTypeError(f"maps of frames must be floating point to be resampled, got {maps.dtype}")
        return frames_to_clip(maps, self.T if T is None else T)

    def _unwarp(
        self, clip: Tensor, steps: tuple[float, ...], image_size: tuple[int, int], padding: str = "zeros"
    ) -> Tensor:
        """Bring maps `(B, S, K, h, w)` of the frames at the given powers back to the image."""
        how = {"interpolation": self.interpolation, "padding": padding}
        return unwarp_clip(clip, self.genotype, steps, image_size, **how, cells=self.cells)


class WayBackFromMap(WayBack):
    """The way back of a clip that begins at maps of one size: what `Image2Video.at_map` returns.

    It is no module, since compiled graphs can make none.

    Args:
        genotype: as in `WayBack`.
        options: likewise.
        cells: likewise.
    """

    def __init__(self, genotype: Clip, options: ClipOptions, cells: tuple[int, int]) -> None:
        self.genotype, self.options, self.cells = genotype, options, cells
