"""The clip of an image, or of a map inside a network, as frames."""

from __future__ import annotations

import os
from typing import Any

from torch import Tensor, nn

from image2video.clip.any_clip import Clip, as_clip, options_for
from image2video.clip.chain import chain_clip, check_colours, set_clip
from image2video.clip.checks import check_frames, check_images, check_size, names_explained
from image2video.clip.colours import Values
from image2video.clip.frame_set import FrameSet
from image2video.clip.frames import clip_to_frames, frames_to_clip
from image2video.clip.map_frames import check_maps, map_clip, valid_shares
from image2video.clip.memory import check_clip_memory
from image2video.clip.moves import image_moves
from image2video.clip.ops.op import working_dtype
from image2video.clip.options import ClipOptions
from image2video.clip.sampling import frames_at
from image2video.clip.way_back import WayBack, WayBackFromMap
from image2video.trace.capture import goes_into_export

__all__ = ["Image2Video", "clip_to_frames", "frames_to_clip"]


class Image2Video(nn.Module, WayBack):
    """Turn images into clips by a genotype or a frame set, and bring maps of the frames back to the image.

    Frame t is one resampling of the image by M(t) = A_n^{s(t)} ··· A_1^{s(t)} (Casarin et al., CVPR 2024, Eq. 7, with
    other schedules added), or one per run of geometric ops where photometric ops stand between; frames with s(t) = 0
    are the image bit for bit, and frames that are mirrored or shifted by whole pixels are slices of it. Frame t of a
    frame set is moved by its own chain (ours). There are no parameters and no
    buffers.

    Args:
        genotype: a `Genotype` or `FrameSet`, its text, the path of a .json file or `"preset:NAME"`.
        T: frames of a clip. None: as the genotype was found with, which its provenance says, else 5. Of a frame set the
            first T frames, at most all that it lists; None: all.
        schedule: the power of each frame: `from_zero` (frame 0 is the image), `ramp`, `centred` or `mirror`; see
            `schedule_steps`. None: as the genotype was found with, else `from_zero`. A frame set has no other.
        padding: what stands outside the image: `zeros` (the mean colour of normalised images), `border` or
            `reflection`. None: as the genotype was found with, else `zeros`.
        interpolation: how frames are sampled: `bilinear`, `nearest` or `bicubic`. None: as the genotype was found with,
            else `bilinear`.
        mean: of the images' normalisation, a number or one per channel (0 for images in 0 … 1); photometric ops need
            it, with `std`.
        std: of the images' normalisation (1 for images in 0 … 1).

    Raises:
        InputError: an unknown option, one that a frame set cannot have, or photometric ops without mean and std.
        InputTypeError: an option of the wrong type.

    >>> to_video = Image2Video("translate_x(0.06) > rotate(10)", T=3)
    >>> to_video(torch.zeros(2, 3, 32, 48)).shape
    torch.Size([2, 3, 3, 32, 48])
    """

    @names_explained
    def __init__(
        self,
        genotype: Clip | str | os.PathLike[str],
        *,
        T: int | None = None,
        schedule: str | None = None,
        padding: str | None = None,
        interpolation: str | None = None,
        mean: Values = None,
        std: Values = None,
    ) -> None:
        super().__init__()
        self.genotype = as_clip(genotype)
        how: dict[str, Any] = {"T": T, "schedule": schedule, "padding": padding, "interpolation": interpolation}
        self.options = options_for(self.genotype, **how, mean=mean, std=std)
        check_colours(self.genotype, self.options.colours)

    @classmethod
    def of(cls, genotype: Clip | str | os.PathLike[str], options: ClipOptions) -> Image2Video:
        """Make the module from ready options.

        Args:
            genotype: as in the constructor.
            options: everything else.

        Returns:
            The new module.
        """
        return cls(genotype, **options.arguments())

    def set_frames(self, T: int) -> None:
        """Make clips of T frames from now on.

        Args:
            T: an integer of at least 1, and no more than a frame set lists; `InputError` and `InputTypeError` refuse
                anything else.
        """
        options = self.options.replace(T=T)
        self.genotype.check_steps(options.steps)
        self.options = options

    def forward(self, images: Tensor, T: int | None = None) -> Tensor:
        """Make the clip of images; `InputTypeError` and `InputError` refuse other dtypes and shapes.

        Args:
            images: `(B, C, H, W)`, floating point and normalised.
            T: frames of this clip; by default those of the module.

        Returns:
            The clip `(B, T, C, H, W)` in the dtype of the images.
        """
        check_images(images)
        check_clip_memory(images, self.T if T is None else check_frames(T))
        return self.clip_of_steps(images, self._steps(T))

    def clip_of_steps(self, images: Tensor, steps: tuple[float, ...]) -> Tensor:
        """Make the frames of images at given steps.

        Args:
            images: as in `forward`, which checks them.
            steps: the powers of a genotype's frames, or the numbers of a set's.

        Returns:
            The clip `(B, S, C, H, W)`.
        """
        height, width = images.shape[-2:]
        if not goes_into_export(height, width):
            self.genotype.check_cells((height, width))
        if not self.genotype.is_geometric:
            if isinstance(self.genotype, FrameSet):
                return set_clip(images, self.genotype, steps, self.options)
            return chain_clip(images, self.genotype, steps, self.options)
        moves = image_moves(self.genotype, steps, images, working_dtype(images))
        return frames_at(images, *moves, padding=self.padding, interpolation=self.interpolation)

    def map_frames(self, maps: Tensor, image_size: tuple[int, int], T: int | None = None) -> Tensor:
        """Make the frames of maps inside a network, in place of those of the image.

        Frame t is one resampling of the maps by the image's matrix M(t), conjugated to their size, with the padding and
        the interpolation of the module; frames with s(t) = 0 are the maps bit for bit, and frames that are mirrored or
        shifted by whole cells are slices of them. Magnitudes in cells count cells of these maps. `unwarp` and
        `unwarped_mean` of `at_map(size of the maps)` bring maps of the frames back.

        Args:
            maps: of the images themselves, `(B, C, h, w)`, floating point.
            image_size: (H, W) of the images.
            T: frames of this clip; by default those of the module.

        Returns:
            The frames `(B·T, C, h, w)` in the dtype of the maps, batch-major: frame t of image b is row b·T + t.

        Raises:
            InputError: other shapes, ops that change colours, or more cells than the op's range allows on such maps.
            InputTypeError: maps that are not floating point.
        """
        steps = self._steps(T)
        check_maps(maps)
        check_clip_memory(maps, len(steps))
        return clip_to_frames(map_clip(maps, self.genotype, steps, image_size, self.options))

    def at_map(self, map_size: tuple[int, int]) -> WayBack:
        """Return the way back of frames that begin at maps of a size, whose cells magnitudes in cells mean.

        Args:
            map_size: (h, w) of the maps that `map_frames` took.

        Returns:
            What has `unwarp`, `unwarped_mean` and the rest of the way back; the module itself where no magnitude is in
            cells, so that the size does not matter.
        """
        if not self.genotype.has_cells:
            return self
        return WayBackFromMap(self.genotype, self.options, check_size(map_size, "map_size"))

    def valid_share(
        self, map_size: tuple[int, int], image_size: tuple[int, int], T: int | None = None
    ) -> tuple[float, ...]:
        """Tell which share of the cells of each frame that `map_frames` makes shows the maps, and no padding.

        Args:
            map_size: (h, w) of the maps.
            image_size: (H, W) of the images.
            T: frames of the clip; by default those of the module.

        Returns:
            A number in 0 … 1 for each frame; 1 for copies and mirror images.

        Raises:
            InputError: whatever `map_frames` refuses.
        """
        return valid_shares(self.genotype, self._steps(T), map_size, image_size)

    def extra_repr(self) -> str:
        """Show the options in `print(model)`.

        Returns:
            The genotype and the options, with the colours only where they matter.
        """
        # The schedule of a frame set goes without saying.
        schedule = "" if isinstance(self.genotype, FrameSet) else f"schedule={self.schedule}, "
        options = f"T={self.T}, {schedule}padding={self.padding}, interpolation={self.interpolation}"
        if self.colours is not None and not self.genotype.is_geometric:
            options += f", mean={self.colours.mean}, std={self.colours.std}"
        return f"{self.genotype}, {options}"
