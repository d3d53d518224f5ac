"""Frames of feature maps: the clip of a map inside a network, which moves as its image would."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from image2video.clip.any_clip import Clip
from image2video.clip.checks import check_size
from image2video.clip.frame_set import FrameSet
from image2video.clip.matrices import conjugated
from image2video.clip.options import ClipOptions
from image2video.clip.sampling import matrix_device, sampled_frames, stack_frames, warp_frames
from image2video.clip.slices import Shift, sliced_frames
from image2video.errors import InputError, InputTypeError
from image2video.trace.capture import constant, goes_into_export


def map_clip(
    maps: Tensor, clip: Clip, steps: tuple[float, ...], image_size: tuple[int, int], options: ClipOptions
) -> Tensor:
    """Make the clip `(B, S, C, h, w)` of maps `(B, C, h, w)` at the given powers, one resampling each.

    Convention: as in `warp`. Frame s is moved by the matrix of an image of the size (H, W), conjugated by the ratios
    w/W and h/H, so that it moves in [-1, 1] coordinates as a frame of the image does. Padding, interpolation, precision
    and memory layout are as in `warp`. Frames that are mirrored and shifted by whole cells alone are slices of the
    maps, bit for bit, as long as the sizes are numbers (in a graph with sizes of its own they are sampled). Magnitudes
    in cells count those of the maps.
    """
    return moved_clip((maps,), clip, steps, (0,) * len(steps), image_size, options)


def moved_clip(
    sources: Sequence[Tensor],
    clip: Clip,
    steps: tuple[float, ...],
    parents: tuple[int, ...],
    image_size: tuple[int, int],
    options: ClipOptions,
) -> Tensor:
    """Make the clip `(B, S, C, h, w)` whose frame s is the map `sources[parents[s]]`, moved at the power `steps[s]`.

    Each source is `(B, C, h, w)`: the map of the images, or those of frames that were moved further ahead. Everything
    else is as in `map_clip`.
    """
    check_inside(clip, "at maps inside a network")
    H, W = check_size(image_size, "image_size")
    like = sources[0]
    h, w = like.shape[-2:]
    if not goes_into_export(h, w):
        clip.check_cells((h, w))
    frames: dict[int, Tensor] = {}
    for parent in dict.fromkeys(parents):
        shifts = {s: _shift(clip, steps[s], h, w) for s, source in enumerate(parents) if source == parent}
        whole = {s: shift for s, shift in shifts.items() if shift is not None}
        if whole:
            frames |= zip(whole, sliced_frames(sources[parent], [*whole.values()], options.padding), strict=True)
    rest = [s for s in range(len(steps)) if s not in frames]
    if rest:
        matrices = clip.step_matrices([steps[s] for s in rest], H, W, matrix_device(like), cells=(h, w))
        matrices = constant(conjugated, matrices, h / H, w / W)
        how = {"padding": options.padding, "interpolation": options.interpolation}
        if len({parents[s] for s in rest}) == 1:
            moved = sampled_frames(sources[parents[rest[0]]], matrices, tuple(range(len(rest))), **how)
        else:
            moved = warp_frames(torch.stack([sources[parents[s]] for s in rest]), matrices, **how).unbind(0)
        frames |= zip(rest, moved, strict=True)
    return stack_frames([frames[s] for s in range(len(steps))], like=like)


def check_inside(clip: Clip, where: str) -> None:
    """Raise `InputError` where a clip that begins inside a network changes colours.

    Args:
        clip: a genotype or frame set.
        where: it begins, in words, as in `"at 'layer3'"`.
    """
    if clip.is_geometric:
        return
    chains = clip.frames if isinstance(clip, FrameSet) else (clip,)
    op = next(t.op for chain in chains for t in chain.chain if not t.geometric)
    raise InputError(
        f"a clip that begins {where} cannot change colours, which exist at the image alone; got {op} in "
        f"{str(clip)!r:.200}; leave it out, as in {str(clip.geometric)!r:.200}, or let the clip begin at the image"
    )


def valid_shares(
    clip: Clip, steps: tuple[float, ...], map_size: tuple[int, int], image_size: tuple[int, int]
) -> tuple[float, ...]:
    """Tell which share of each frame's cells shows the map, and not what stands outside of it.

    `map_size` is (h, w) of the maps where the clip begins, `image_size` (H, W) of their image. The map of ones is
    warped with zeros around it, so that a cell may count in part.
    """
    ones = torch.ones((1, 1, *check_size(map_size, "map_size")), device="cpu")
    frames = map_clip(ones, clip, steps, image_size, ClipOptions(padding="zeros"))
    return tuple(frames[0].double().mean(dim=(1, 2, 3)).tolist())


def _shift(clip: Clip, step: float, height: int, width: int) -> Shift | None:
    """Tell how a frame is sliced; None where it has to be sampled."""
    axes = clip.mirrored(step)
    if axes is not None:
        return Shift(axes, 0, 0)
    # A graph for many sizes must not be decided by one of them.
    return None if goes_into_export(height, width) else clip.whole_shift(step, height, width)


def check_maps(maps: Tensor) -> None:
    """Raise `InputError` for other shapes than (B, C, h, w), `InputTypeError` for maps that cannot be resampled."""
    if maps.ndim != 4:
        raise InputError(f"maps must have the shape (B, C, h, w), got {tuple(maps.shape)}")
    if not maps.is_floating_point():
        raise InputTypeError(f"maps must be floating point to be resampled, got {maps.dtype}")
