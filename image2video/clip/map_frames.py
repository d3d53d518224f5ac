"""Frames of feature maps: the clip of a map inside a network, which moves as its image would."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from image2video.clip.any_clip import Clip
from image2video.clip.checks import check_size
from image2video.clip.frame_set import FrameSet
from image2video.clip.moves import map_moves
from image2video.clip.ops.op import working_dtype
from image2video.clip.options import ClipOptions
from image2video.clip.sampling import frames_at, sampled_each, stack_frames
from image2video.clip.slices import sliced_frames
from image2video.errors import InputError, InputTypeError
from image2video.trace.capture import goes_into_export


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
    how = {"padding": options.padding, "interpolation": options.interpolation}
    moves = map_moves(clip, steps, (H, W), like, working_dtype(like))
    if len(sources) == 1:
        return frames_at(like, moves.shifts, moves.grid, **how)
    rest = [s for s, shift in enumerate(moves.shifts) if shift is None]
    frames: dict[int, Tensor] = {}
    for parent, source in enumerate(sources):
        own = {s: shift for s, shift in enumerate(moves.shifts) if shift is not None and parents[s] == parent}
        frames |= zip(own, sliced_frames(source, [*own.values()], options.padding), strict=True)
    if moves.grid is not None:
        of_rest = torch.stack([sources[parents[s]] for s in rest])
        frames |= zip(rest, sampled_each(of_rest, moves.grid, **how).unbind(0), strict=True)
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


def check_maps(maps: Tensor) -> None:
    """Raise `InputError` for other shapes than (B, C, h, w), `InputTypeError` for maps that cannot be resampled."""
    if maps.ndim != 4:
        raise InputError(f"maps must have the shape (B, C, h, w), got {tuple(maps.shape)}")
    if not maps.is_floating_point():
        raise InputTypeError(f"maps must be floating point to be resampled, got {maps.dtype}")
