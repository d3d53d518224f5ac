"""Resampling of images by matrices: pure functions, one sampler call each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from image2video.clip.checks import check_choice
from image2video.clip.matrices import inverse_affine, normalise
from image2video.clip.ops.op import working_dtype
from image2video.clip.slices import Shift, mirror, sliced_frames, write_shifted
from image2video.errors import InputError
from image2video.trace.capture import constant, is_captured, is_plain
from image2video.trace.layout import is_channels_last

PADDINGS: tuple[str, ...] = ("zeros", "border", "reflection")
INTERPOLATIONS: tuple[str, ...] = ("bilinear", "nearest", "bicubic")
_GPU_THREADS = 1 << 18
_PIECE = 1 << 20
"""Bytes of moved frames that a thread makes at once: they stay in its cache until they are copied to their place."""


def warp(
    images: Tensor,
    matrices: Tensor,
    *,
    padding: str = "zeros",
    interpolation: str = "bilinear",
    mirrored: Sequence[tuple[int, ...] | None] | None = None,
) -> Tensor:
    """Move every image by every matrix: `(N, C, H, W)` and `(S, 3, 3)` give `(N, S, C, H, W)`.

    Convention: pixel centres, `align_corners=False`; a matrix maps a point of the image to where its content stands in
    the frame (centred pixels, x right, y down): frame(p) = image(M⁻¹ p). `padding`: `zeros` (outside is 0, the mean
    colour of normalised images), `border` or `reflection`. `interpolation`: `bilinear`, `nearest` or `bicubic`.
    `mirrored[s]` holds the axes of frames that are the image itself, `()`, or mirror images of it, such as `(-1,)`:
    they are copied bit for bit and never sampled; None stands for all other frames.

    Differentiable in images and matrices. Coordinates are float32 (float64 for float64 images) under autocast too;
    half-precision images are sampled in float32 and come back in their dtype. Images that are channels_last give frames
    that are channels_last after `clip_to_frames`. Raises `InputError` for wrong shapes and unknown options.
    """
    if images.ndim != 4 or matrices.ndim != 3 or matrices.shape[1:] != (3, 3):
        raise InputError(
            f"warp needs images (N, C, H, W) and matrices (S, 3, 3), got {tuple(images.shape)} and "
            f"{tuple(matrices.shape)}"
        )
    mirrored = [None] * matrices.shape[0] if mirrored is None else list(mirrored)
    if len(mirrored) != matrices.shape[0]:
        raise InputError(f"mirrored must have one entry per matrix, {matrices.shape[0]}, got {len(mirrored)}")
    shifts = tuple(None if axes is None else Shift(axes, 0, 0) for axes in mirrored)
    rows = tuple(s for s, axes in enumerate(mirrored) if axes is None)
    how = (*images.shape[-2:], working_dtype(images), images.device)
    grid = constant(frame_grid, matrices, rows, *how) if rows else None
    return frames_at(images, shifts, grid, padding=padding, interpolation=interpolation)


def frames_at(
    images: Tensor, shifts: Sequence[Shift | None], grid: Tensor | None, *, padding: str, interpolation: str
) -> Tensor:
    """Make the clip `(N, S, C, H, W)` of images `(N, C, H, W)`, whose frames are slices or samples of them.

    Frame s is sliced where `shifts[s]` says how; the others are sampled at the points of `grid` `(S', H, W, 2)`, in
    order. Options, precision and memory layout as in `warp`.
    """
    _check_options(padding, interpolation)
    how = {"padding": padding, "interpolation": interpolation}
    given = [images] if grid is None else [images, grid]
    if (
        images.device.type == "cpu"
        and is_plain(*given)
        and not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given))
    ):
        return _written(images, shifts, grid, **how)
    sliced = iter(sliced_frames(images, [shift for shift in shifts if shift is not None], padding))
    moved = iter(() if grid is None else _sampled(images, grid, **how).to(images.dtype).unbind(0))
    return stack_frames([next(moved if shift is None else sliced) for shift in shifts], like=images)


def _written(
    images: Tensor, shifts: Sequence[Shift | None], grid: Tensor | None, *, padding: str, interpolation: str
) -> Tensor:
    """Do what `frames_at` does, some images at a time: on a CPU, fresh memory for all costs more than sampling them."""
    N, C, H, W = images.shape
    clip = _empty_clip(images, len(shifts))
    sampled = 0 if grid is None else grid.shape[0]
    few = max(1, _PIECE * torch.get_num_threads() // max(1, 4 * C * H * W * max(1, sampled)))
    pieces = [(images, clip)] if few >= N else zip(images.split(few), clip.split(few), strict=True)
    for piece, into in pieces:
        frames = into.unbind(1)
        moved: Iterable[Tensor] = ()
        if grid is not None:
            moved = _sampled(piece, grid, padding=padding, interpolation=interpolation).unbind(0)
        rest = iter(moved)
        for frame, shift in zip(frames, shifts, strict=True):
            if shift is None:
                frame.copy_(next(rest))
            else:
                write_shifted(frame, piece, shift, padding)
    return clip


def _sampled(images: Tensor, grid: Tensor, *, padding: str, interpolation: str) -> Tensor:
    """Sample images `(N, C, H, W)` at points `(S, H, W, 2)`: `(S, N, C, H, W)` in the dtype of the points."""
    N, C, H, W = images.shape
    S = grid.shape[0]
    # The images of a group are channels of one picture: the sampler works out its weights once per picture.
    groups = _groups(images, S)
    # One group is expanded over the frames without a copy.
    if groups == 1:
        pictures, points = images.to(grid.dtype).reshape(1, N * C, H, W).expand(S, -1, -1, -1), grid
    else:
        picture = images.to(grid.dtype).reshape(1, groups, N // groups * C, H, W)
        pictures = picture.expand(S, -1, -1, -1, -1).flatten(0, 1)
        points = grid.repeat_interleave(groups, dim=0)
    return sample(pictures, points, padding=padding, interpolation=interpolation).view(S, N, C, H, W)


def warp_frames(frames: Tensor, matrices: Tensor, *, padding: str = "zeros", interpolation: str = "bilinear") -> Tensor:
    """Move every frame `(S, N, C, H, W)` by its own matrix of `(S, 3, 3)`, the same for all images; same shape.

    Convention, options, precision and errors as in `warp`, whose frames all start from the same image.
    """
    if frames.ndim != 5 or matrices.shape != (frames.shape[0], 3, 3):
        raise InputError(
            f"warp_frames needs frames (S, N, C, H, W) and matrices (S, 3, 3), got {tuple(frames.shape)} and "
            f"{tuple(matrices.shape)}"
        )
    S, _, _, H, W = frames.shape
    grid = constant(frame_grid, matrices, tuple(range(S)), H, W, working_dtype(frames), frames.device)
    return sampled_each(frames, grid, padding=padding, interpolation=interpolation)


def sampled_each(frames: Tensor, grid: Tensor, *, padding: str, interpolation: str) -> Tensor:
    """Sample every frame `(S, N, C, H, W)` at its own points of `(S, H, W, 2)`, the same for all images; same shape."""
    S, N, C, H, W = frames.shape
    groups = _groups(frames[0], S)
    pictures = frames.to(working_dtype(frames)).reshape(S * groups, N // groups * C, H, W)
    points = grid if groups == 1 else grid.repeat_interleave(groups, dim=0)
    out = sample(pictures, points, padding=padding, interpolation=interpolation)
    return out.to(frames.dtype).view(S, N, C, H, W)


def resample(x: Tensor, theta: Tensor, *, padding: str = "zeros", interpolation: str = "bilinear") -> Tensor:
    """Sample `(G, C, H, W)` at theta · p for every output pixel p: one backward map `(G, 3, 3)` per row of `x`.

    Convention: `theta` acts on [−1, 1] coordinates with `align_corners=False` (see `normalise`) and maps output points
    to input points. Differentiable in both. `x` may be expanded (stride 0); it is not copied. Raises `InputError` for
    wrong shapes and unknown options.
    """
    if x.ndim != 4 or theta.ndim != 3 or theta.shape[1:] != (3, 3) or theta.shape[0] != x.shape[0]:
        raise InputError(f"resample needs (G, C, H, W) and (G, 3, 3), got {tuple(x.shape)} and {tuple(theta.shape)}")
    grid = sampling_grid(theta, x.shape[2], x.shape[3], working_dtype(x), x.device)
    return sample(x, grid, padding=padding, interpolation=interpolation)


def sample(x: Tensor, grid: Tensor, *, padding: str, interpolation: str) -> Tensor:
    """Sample `(G, C, H, W)` at the points of `sampling_grid`, in the dtype of the points; `x` may be expanded."""
    _check_options(padding, interpolation)
    wide = x.to(grid.dtype)
    out = nn.functional.grid_sample(wide, grid, mode=interpolation, padding_mode=padding, align_corners=False)
    return out.to(x.dtype)


def sampling_grid(theta: Tensor, height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the points `(G, H, W, 2)` that backward maps `(G, 3, 3)` sample at, as `affine_grid` does."""
    theta = theta.to(dtype).to(device)  # in this order: there are devices without float64
    # affine_grid multiplies matrices, which autocast and TF32 would round to a tenth of a pixel; both leave sums of
    # products alone.
    xs = (torch.arange(width, device=theta.device, dtype=theta.dtype) * 2 + 1) / width - 1
    ys = ((torch.arange(height, device=theta.device, dtype=theta.dtype) * 2 + 1) / height - 1).unsqueeze(-1)
    a = theta[:, :2, :, None, None]
    x = a[:, 0, 0] * xs + a[:, 0, 1] * ys + a[:, 0, 2]
    y = a[:, 1, 0] * xs + a[:, 1, 1] * ys + a[:, 1, 2]
    return torch.stack([x, y], dim=-1)


def frame_grid(
    matrices: Tensor,
    rows: tuple[int, ...],
    height: int,
    width: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Return where the frames `rows` sample their image, by the matrices of all frames."""
    chosen = matrices if len(rows) == len(matrices) else torch.stack([matrices[s] for s in rows])
    theta = normalise(inverse_affine(chosen), height, width)
    return sampling_grid(theta, height, width, dtype, device)


def _groups(images: Tensor, frames: int) -> int:
    """Return into how many groups a batch is split: its smallest divisor at which every thread has work."""
    # The batch of a captured graph stands for others, which a group may not divide.
    if is_captured():
        return 1
    N = images.shape[0]
    if images.device.type == "cpu":  # a thread takes a whole picture
        work, wanted = frames, torch.get_num_threads()
    else:  # a thread takes one pixel of a picture, through all its channels
        work, wanted = frames * images.shape[2] * images.shape[3], _GPU_THREADS
    if N == 0 or work >= wanted:
        return 1
    divisors = [g for g in range(1, N + 1) if N % g == 0]
    return next((g for g in divisors if g * work >= wanted), N)


def in_order(
    mirrored: Sequence[tuple[int, ...] | None], still: Sequence[Tensor], moved: Iterable[Tensor]
) -> list[Tensor]:
    """List all frames: `still[s]`, mirrored along the axes of frame s, and the next moved one where there are none."""
    rest = iter(moved)
    return [next(rest) if axes is None else mirror(still[s], axes) for s, axes in enumerate(mirrored)]


def stack_frames(frames: Sequence[Tensor], *, like: Tensor) -> Tensor:
    """Stack frames `(N, C, H, W)` to a clip `(N, S, C, H, W)` whose flattening over (N, S) is a view.

    The clip has the memory layout of the images `like`, or of the images that `like` is a slice of.
    """
    # One copy lays the frames out in the order in which the backbone reads them.
    if is_channels_last(like):
        return torch.stack([f.permute(0, 2, 3, 1) for f in frames], dim=1).contiguous().permute(0, 1, 4, 2, 3)
    return torch.stack(list(frames), dim=1).contiguous()


def _empty_clip(images: Tensor, frames: int) -> Tensor:
    """Return memory for the clip of images, laid out as `stack_frames` lays it out."""
    N, C, H, W = images.shape
    if is_channels_last(images):
        return images.new_empty((N, frames, H, W, C)).permute(0, 1, 4, 2, 3)
    return images.new_empty((N, frames, C, H, W))


def matrix_device(tensor: Tensor) -> torch.device | str:
    """Say where to compute float64 matrices for `tensor`: on the CPU, but on the device in a graph for CUDA."""
    # A compiled graph stays on one device (a copy from the CPU would keep it out of CUDA graphs); in eager mode the
    # handful of 3×3 operations is cheaper on the CPU. MPS has no float64.
    if torch.compiler.is_compiling() and tensor.device.type == "cuda":
        return tensor.device
    return "cpu"


def _check_options(padding: str, interpolation: str) -> None:
    """Raise `InputError` for an unknown option."""
    check_choice("padding", padding, PADDINGS)
    check_choice("interpolation", interpolation, INTERPOLATIONS)
