"""The clip of an image: its frames, the way back, and the two functions that reshape between clip and frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from image2video.clip.chain import chain_clip, check_colours
from image2video.clip.checks import check_frames, check_images, check_size
from image2video.clip.colours import Colours, Values
from image2video.clip.cover import covered_mean
from image2video.clip.genotype import Genotype
from image2video.clip.matrices import normalise
from image2video.clip.options import ClipOptions
from image2video.clip.sampling import matrix_device, resample, warp
from image2video.clip.schedules import schedule_steps
from image2video.errors import InputError, InputTypeError


def clip_to_frames(clip: Tensor) -> Tensor:
    """`(B, T, …)` as `(B·T, …)`, batch-major: frame t of image b is row b·T + t.

    Raises `InputError` below two dimensions.
    """
    if clip.ndim < 2:
        raise InputError(f"a clip has the shape (B, T, …), got {tuple(clip.shape)}")
    return clip.flatten(0, 1)


def frames_to_clip(frames: Tensor, T: int) -> Tensor:
    """`(B·T, …)` as `(B, T, …)`, the inverse of `clip_to_frames`.

    Raises `InputError` where the rows are not a multiple of T, `InputTypeError` where T is no integer.
    """
    T = check_frames(T)
    if frames.ndim < 1 or frames.shape[0] % T != 0:
        raise InputError(
            f"frames of T = {T} have B·T rows, got the shape {tuple(frames.shape)}, whose first size is not a multiple "
            f"of {T}; pass the T that the clip was made with"
        )
    return frames.unflatten(0, (frames.shape[0] // T, T))


class Image2Video(nn.Module):
    """Turn images into clips by a genotype, and bring maps of the frames back to the image.

    `genotype`: a `Genotype`, or a text, .json path or "preset:NAME". `T`: the number of frames. `schedule`: the power
    of each frame, one of `from_zero` (default; frame 0 is the image), `ramp`, `centred`, `mirror` (see
    `schedule_steps`). `padding`: what stands outside the image: `zeros` (the mean colour of normalised images),
    `border` or `reflection`. `interpolation`: `bilinear`, `nearest` or `bicubic`. `mean`, `std`: how the images are
    normalised (numbers, or one per channel; 0 and 1 for images in 0 … 1), needed by photometric ops alone.

    Frame t is one resampling of the image by M(t) = A_n^{s(t)} ··· A_1^{s(t)} (Casarin et al., CVPR 2024, Eq. 7, with
    other schedules added), or one per run of geometric ops where photometric ops stand between; frames with s(t) = 0
    are the image bit for bit. There are no parameters and no buffers. Raises `InputError` and `InputTypeError` for
    options that it does not know, and for photometric ops without mean and std.

    >>> to_video = Image2Video("translate_x(0.06) > rotate(10)", T=3)
    >>> to_video(torch.zeros(2, 3, 32, 48)).shape
    torch.Size([2, 3, 3, 32, 48])
    """

    def __init__(
        self,
        genotype: Genotype | str,
        *,
        T: int = 5,
        schedule: str = "from_zero",
        padding: str = "zeros",
        interpolation: str = "bilinear",
        mean: Values = None,
        std: Values = None,
    ) -> None:
        super().__init__()
        self.genotype = Genotype.coerce(genotype)
        self.options = ClipOptions(T, schedule, padding, interpolation, mean, std)
        check_colours(self.genotype, self.options.colours)
        self.genotype.check_steps(self.options.steps)

    @classmethod
    def of(cls, genotype: Genotype | str, options: ClipOptions) -> Image2Video:
        """The module of a genotype and ready options."""
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
        """Make clips of T frames from now on; raises `InputTypeError` or `InputError` for no integer of at least 1."""
        options = self.options.replace(T=T)
        self.genotype.check_steps(options.steps)
        self.options = options

    def forward(self, images: Tensor, T: int | None = None) -> Tensor:
        """The clip `(B, T, C, H, W)` of images `(B, C, H, W)`, floating point and normalised, in their dtype.

        `T` overrides the module's number of frames for this call. Raises `InputTypeError` for images that are not
        floating point, `InputError` for other shapes.
        """
        check_images(images)
        steps = self._steps(T)
        height, width = images.shape[-2:]
        if not self.genotype.is_geometric:
            return chain_clip(images, self.genotype, steps, self.options)
        matrices = self.genotype.step_matrices(steps, height, width, matrix_device(images))
        copied = [self._is_copy(s) for s in steps]
        return warp(images, matrices, padding=self.padding, interpolation=self.interpolation, copied=copied)

    def unwarp(self, maps: Tensor, image_size: tuple[int, int], T: int | None = None) -> Tensor:
        """Maps of the frames `(B·T, K, h, w)` as `(B, T, K, h, w)`, each in the reference image; zeros outside.

        `image_size` is (H, W) of the image that the frames were made from; the maps may have any other size. Maps of
        frames with s(t) = 0 come back bit for bit. Interpolation is bilinear, or nearest where the module's is; a
        bicubic one would overshoot. Raises `InputError` for other shapes, `InputTypeError` for maps that are not
        floating point.
        """
        maps = self._clip_of_maps(maps, T)
        return self._unwarp(maps, image_size, self._steps(T))

    def unwarp_frame(
        self, maps: Tensor, t: int, image_size: tuple[int, int], T: int | None = None, *, padding: str = "zeros"
    ) -> Tensor:
        """Maps of frame t alone `(B, K, h, w)` in the reference image: what `unwarp` gives at `[:, t]`.

        For whoever adds up frames one by one, where all of them would not fit. `padding="border"` goes on beyond the
        frame with its edge. Raises as `unwarp` does, and `InputError` for t that is no frame.
        """
        steps = self._steps(T)
        if not 0 <= t < len(steps):
            raise InputError(f"there is no frame {t}: the clip has the frames 0 … {len(steps) - 1}")
        return self._unwarp(self._clip_of_maps(maps, 1), image_size, steps[t : t + 1], padding)[:, 0]

    def nearest_frame(self, T: int | None = None) -> int:
        """The frame with the smallest |s|, the first of equals."""
        return min(enumerate(self._steps(T)), key=lambda step: abs(step[1]))[0]

    def keeps_image(self, T: int | None = None) -> bool:
        """Whether some frame has the image's pixels in their place, so that the frames together show all of it."""
        return any(self._is_copy(s) for s in self._steps(T))

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
        """How much of every reference pixel each frame shows: `(T, 1, h, w)` in [0, 1], the unwarped maps of ones.

        `valid` `(B, 1, H, W)` (bool or 0 … 1; 0 on padding) gives images their own valid area; the mask is then
        `(B, T, 1, h, w)`. `device` and `dtype` default to the CPU (or `valid`'s device) and float32.
        Raises `InputError` for sizes that are not (height, width).
        """
        h, w = check_size(map_size, "map_size")
        steps = self._steps(T)
        if valid is None:
            ones = torch.ones((1, len(steps), 1, h, w), device=device, dtype=dtype)
            return self._unwarp(ones, image_size, steps)[0]
        weights = self._frame_weights(valid.to(device=device or valid.device, dtype=dtype), (h, w), image_size, steps)
        return self._unwarp(weights, image_size, steps)

    def unwarped_mean(
        self,
        maps: Tensor,
        image_size: tuple[int, int],
        T: int | None = None,
        *,
        valid: Tensor | None = None,
    ) -> Tensor:
        """The average over the frames of maps `(B·T, K, h, w)` in the reference image: `(B, K, h, w)`, in their dtype.

        Σ_t unwarp(map_t) / Σ_t mask_t, summed in float32 (float64 for float64 maps); where Σ mask < 1e-3 the frame with
        the smallest |s|, unwarped with border padding. A constant map stays constant, gradients are finite. `valid`
        `(B, 1, H, W)` as in `valid_mask`. Raises as `unwarp` does.
        """
        clip = self._clip_of_maps(maps, T)
        steps = self._steps(T)
        clip = clip.to(torch.float64 if maps.dtype == torch.float64 else torch.float32)
        weights = None
        if valid is not None:
            if valid.shape[0] != clip.shape[0]:
                raise InputError(f"valid has {valid.shape[0]} rows for maps of {clip.shape[0]} images")
            weights = self._frame_weights(valid.to(clip), (clip.shape[-2], clip.shape[-1]), image_size, steps)
        total = self._unwarp(clip if weights is None else clip * weights, image_size, steps).sum(dim=1)
        ones = torch.ones_like(clip[:1, :, :1]) if weights is None else weights
        cover = self._unwarp(ones, image_size, steps).sum(dim=1)

        def nearest_frame() -> Tensor:
            t = self.nearest_frame(T)
            return self.unwarp_frame(clip[:, t], t, image_size, T, padding="border")

        # A frame that is the image itself shows every pixel.
        all_seen = valid is None and self.keeps_image(T)
        return covered_mean(total, cover, None if all_seen else nearest_frame).to(maps.dtype)

    def extra_repr(self) -> str:
        """The options, as `print(model)` shows them."""
        options = f"T={self.T}, schedule={self.schedule}, padding={self.padding}, interpolation={self.interpolation}"
        if self.colours is not None and not self.genotype.is_geometric:
            options += f", mean={self.colours.mean}, std={self.colours.std}"
        return f"{self.genotype}, {options}"

    def _steps(self, T: int | None) -> tuple[float, ...]:
        steps = schedule_steps(self.schedule, self.T if T is None else T)
        if len(steps) != self.T and not torch.compiler.is_compiling():
            self.genotype.check_steps(steps)
        return steps

    def _is_copy(self, step: float) -> bool:
        """Whether the geometric part of the chain leaves the pixels of that step in their place."""
        return step == 0 or not any(t.geometric for t in self.genotype.chain)

    def _clip_of_maps(self, maps: Tensor, T: int | None) -> Tensor:
        if maps.ndim != 4:
            raise InputError(f"maps of frames have the shape (B·T, K, h, w), got {tuple(maps.shape)}")
        if not maps.is_floating_point():
            raise InputTypeError(f"maps of frames must be floating point to be resampled, got {maps.dtype}")
        return frames_to_clip(maps, self.T if T is None else T)

    def _unwarp(
        self, clip: Tensor, image_size: tuple[int, int], steps: tuple[float, ...], padding: str = "zeros"
    ) -> Tensor:
        height, width = check_size(image_size, "image_size")
        sampled = [t for t, step in enumerate(steps) if not self._is_copy(step)]
        if not sampled:
            return clip
        powers = [steps[t] for t in sampled]
        # The way back reads the frame at M · p, so the frame's own matrix is the backward map; in [-1, 1] coordinates
        # it is the same for maps of every size.
        matrices = self.genotype.step_matrices(powers, height, width, matrix_device(clip))
        theta = normalise(matrices, height, width)
        source = clip if len(sampled) == len(steps) else torch.stack([clip[:, t] for t in sampled], dim=1)
        mode = "nearest" if self.interpolation == "nearest" else "bilinear"
        out = resample(clip_to_frames(source), theta.repeat(clip.shape[0], 1, 1), padding=padding, interpolation=mode)
        out = frames_to_clip(out, len(sampled))
        if len(sampled) == len(steps):
            return out
        moved = iter(out.unbind(1))
        return torch.stack([clip[:, t] if self._is_copy(s) else next(moved) for t, s in enumerate(steps)], dim=1)

    def _frame_weights(
        self, valid: Tensor, size: tuple[int, int], image_size: tuple[int, int], steps: tuple[float, ...]
    ) -> Tensor:
        height, width = check_size(image_size, "image_size")
        if valid.ndim != 4 or valid.shape[1:] != (1, height, width):
            raise InputError(f"valid must have the shape (B, 1, {height}, {width}), got {tuple(valid.shape)}")
        small = nn.functional.adaptive_avg_pool2d(valid, size)
        scale = small.new_tensor([size[1] / width, size[0] / height, 1.0], dtype=torch.float64, device="cpu")
        matrices = self.genotype.step_matrices(steps, height, width) * scale.unsqueeze(-1) / scale
        # Beyond the canvas the area goes on as at its edge: images that fill it get the mask of images without `valid`.
        return warp(small, matrices, padding="border", copied=[self._is_copy(s) for s in steps])
