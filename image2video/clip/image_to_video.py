"""The clip of an image: its frames, the way back, and the two functions that reshape between clip and frames."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

from image2video.clip.any_clip import Clip, as_clip, options_for
from image2video.clip.chain import chain_clip, check_colours, set_clip
from image2video.clip.checks import check_frames, check_images, check_size, names_explained
from image2video.clip.colours import Colours, Values
from image2video.clip.cover import covered_mean
from image2video.clip.frame_set import FrameSet
from image2video.clip.map_frames import map_clip
from image2video.clip.memory import check_clip_memory
from image2video.clip.ops.op import working_dtype
from image2video.clip.options import ClipOptions
from image2video.clip.sampling import matrix_device, warp
from image2video.clip.schedules import schedule_steps
from image2video.clip.unwarp import frame_weights, unwarp_clip
from image2video.errors import InputError, InputTypeError


def clip_to_frames(clip: Tensor) -> Tensor:
    """Reshape a clip to frames, batch-major: frame t of image b is row b·T + t.

    Args:
        clip: `(B, T, …)`.

    Returns:
        `(B·T, …)`.

    Raises:
        InputError: fewer than two dimensions.
    """
    if clip.ndim < 2:
        raise InputError(f"a clip must have the shape (B, T, …), got {tuple(clip.shape)}")
    return clip.flatten(0, 1)


def frames_to_clip(frames: Tensor, T: int) -> Tensor:
    """Reshape frames to a clip, the inverse of `clip_to_frames`.

    Args:
        frames: `(B·T, …)`.
        T: frames per image.

    Returns:
        `(B, T, …)`.

    Raises:
        InputError: a number of rows that is not a multiple of T.
        InputTypeError: a T that is no integer.
    """
    T = check_frames(T)
    if frames.ndim < 1 or frames.shape[0] % T != 0:
        raise InputError(
            f"frames of T = {T} must have B·T rows, got the shape {tuple(frames.shape)}, whose first size is not a "
            f"multiple of {T}; pass the T that the clip was made with"
        )
    return frames.unflatten(0, (-1, T))


class Image2Video(nn.Module):
    """Turn images into clips by a genotype or a frame set, and bring maps of the frames back to the image.

    Frame t is one resampling of the image by M(t) = A_n^{s(t)} ··· A_1^{s(t)} (Casarin et al., CVPR 2024, Eq. 7, with
    other schedules added), or one per run of geometric ops where photometric ops stand between; frames with s(t) = 0
    are the image bit for bit. Frame t of a frame set is moved by its own chain (ours). There are no parameters and no
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

    @property
    def T(self) -> int:  # noqa: N802 (the field's name for the number of frames)
        """The number of frames of a clip; `set_frames` changes it."""
        return self.options.T

    @property
    def schedule(self) -> str:
        """The schedule, which gives every frame its power."""
        return self.options.schedule

    @property
    def padding(self) -> str:
        """What stands outside the image."""
        return self.options.padding

    @property
    def interpolation(self) -> str:
        """How frames are sampled."""
        return self.options.interpolation

    @property
    def colours(self) -> Colours | None:
        """How the images are normalised; None where that is not known."""
        return self.options.colours

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
        steps = self._steps(T)
        if not self.genotype.is_geometric:
            if isinstance(self.genotype, FrameSet):
                return set_clip(images, self.genotype, steps, self.options)
            return chain_clip(images, self.genotype, steps, self.options)
        height, width = images.shape[-2:]
        matrices = self.genotype.step_matrices(steps, height, width, matrix_device(images))
        mirrored = [self.genotype.mirrored(step) for step in steps]
        return warp(images, matrices, padding=self.padding, interpolation=self.interpolation, mirrored=mirrored)

    def map_frames(self, maps: Tensor, image_size: tuple[int, int], T: int | None = None) -> Tensor:
        """Make the frames of maps inside a network, in place of those of the image.

        Frame t is one resampling of the maps by the image's matrix M(t), conjugated to their size, with the padding and
        the interpolation of the module; frames with s(t) = 0 are the maps bit for bit. `unwarp` and `unwarped_mean`
        bring maps of these frames back.

        Args:
            maps: of the images themselves, `(B, C, h, w)`, floating point.
            image_size: (H, W) of the images.
            T: frames of this clip; by default those of the module.

        Returns:
            The frames `(B·T, C, h, w)` in the dtype of the maps, batch-major: frame t of image b is row b·T + t.

        Raises:
            InputError: other shapes.
            InputTypeError: maps that are not floating point.
        """
        return clip_to_frames(map_clip(maps, self.genotype, self._steps(T), image_size, self.options))

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
        return self._unwarp(frame_weights(valid, self.genotype, steps, (h, w), image_size), steps, image_size)

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
            weights = frame_weights(valid.to(clip), self.genotype, steps, size, image_size)
            weighted = clip * weights
        total = self._unwarp(weighted, steps, image_size).sum(dim=1)
        cover = self._unwarp(weights, steps, image_size).sum(dim=1)

        def nearest_frame() -> Tensor:
            t = self.nearest_frame(T)
            return self.unwarp_frame(clip[:, t], t, image_size, T, padding="border")

        # A frame that is the image itself shows every pixel.
        all_seen = valid is None and self.keeps_image(T)
        return covered_mean(total, cover, None if all_seen else nearest_frame).to(maps.dtype)

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
        return unwarp_clip(clip, self.genotype, steps, image_size, **how)
