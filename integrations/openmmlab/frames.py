"""Clips of padded batches and their way back: each image is warped about its own centre, its padding stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from image2video.functional import Image2Video, InputError, UnsupportedError, clip_to_frames

Size = tuple[int, int]
_LEAST_COVER = 1e-3


def content_sizes(canvas: Size, metas: Sequence[Mapping[str, Any]]) -> tuple[Size, ...]:
    """(height, width) of every image without its padding, which mmsegmentation puts on the right and below.

    `canvas` is the size of the padded batch. Raises `UnsupportedError` for padding on the left or above, `InputError`
    for padding that leaves nothing.
    """
    sizes = []
    for meta in metas:
        left, right, top, bottom = meta.get("img_padding_size", meta.get("padding_size", (0, 0, 0, 0)))
        if left or top:
            raise UnsupportedError(
                f"an image has {left} pixels of padding on the left and {top} above; the clip knows padding on the "
                "right and below, which is what mmsegmentation's data preprocessors add"
            )
        height, width = canvas[0] - int(bottom), canvas[1] - int(right)
        if height < 1 or width < 1:
            raise InputError(
                f"padding of {right} × {bottom} pixels leaves nothing of a {canvas[1]} × {canvas[0]} batch"
            )
        sizes.append((height, width))
    return tuple(sizes)


def padded_frames(to_video: Image2Video, images: Tensor, content: Sequence[Size]) -> Tensor:
    """The frames `(B·T, C, H, W)` of images `(B, C, H, W)` whose contents have the sizes `content`.

    Each content is warped about its own centre; around it the frames are padded as the image is.
    """
    canvas = (images.shape[2], images.shape[3])
    if all(size == canvas for size in content):
        return clip_to_frames(to_video(images))
    clip = images.unsqueeze(1).repeat(1, to_video.T, 1, 1, 1)
    for (height, width), rows in _groups(content):
        clip[rows, :, :, :height, :width] = to_video(images[rows, :, :height, :width])
    return clip_to_frames(clip)


def mean_of_frames(
    to_video: Image2Video, frame: Callable[[int], Tensor], content: Sequence[Size], canvas: Size
) -> Tensor:
    """The unwarped mean over T of maps given one frame at a time: Σ unwarp / Σ mask, `(B, K, h, w)`.

    Args:
        to_video: what made the frames.
        frame: t -> the maps `(B, K, h, w)` of frame t, of any size; it stands for the whole padded batch.
        content: the size of each image without padding.
        canvas: the size of the padded batch.

    Never holds more than two frames' maps beside the sum; a backward pass computes each frame's anew. Sums are taken in
    float32 (float64 for float64). Where no frame shows a pixel, it takes the frame with the smallest |s|, unwarped with
    border padding; in the padding, which nothing moves, the plain mean.

    """
    total = _sum_of_frames(to_video, frame, content, canvas)
    for (height, width), rows in _groups(content):
        h, w = _scaled((height, width), canvas, (total.shape[2], total.shape[3]))
        cover = to_video.valid_mask((h, w), (height, width), device=total.device, dtype=total.dtype).sum(dim=0)
        seen = cover >= _LEAST_COVER
        divisor = torch.ones((1, *total.shape[2:]), device=total.device, dtype=total.dtype) * to_video.T
        divisor[:, :h, :w] = torch.where(seen, cover, 1.0)
        whole = (h, w) == (total.shape[2], total.shape[3]) and len(rows) == len(total)
        if whole and seen.all():
            return total / divisor
        total = total.clone() if torch.is_grad_enabled() else total
        total[rows] = total[rows] / divisor
        if not seen.all():
            nearest = to_video.nearest_frame()
            maps = _wide(frame(nearest))[rows, :, :h, :w]
            fallback = to_video.unwarp_frame(maps, nearest, (height, width), padding="border")
            total[rows, :, :h, :w] = torch.where(seen, total[rows, :, :h, :w], fallback)
    return total


def _sum_of_frames(
    to_video: Image2Video, frame: Callable[[int], Tensor], content: Sequence[Size], canvas: Size
) -> Tensor:
    if not torch.is_grad_enabled():
        total = _unwarped(to_video, frame, 0, content, canvas).clone()  # frame 0 may be the head's own output
        for t in range(1, to_video.T):
            total += _unwarped(to_video, frame, t, content, canvas)
        return total
    parts = (
        checkpoint(_unwarped, to_video, frame, t, content, canvas, use_reentrant=False, preserve_rng_state=False)
        for t in range(to_video.T)
    )
    total = next(parts)
    for part in parts:
        total = total + part
    return total


def _unwarped(
    to_video: Image2Video, frame: Callable[[int], Tensor], t: int, content: Sequence[Size], canvas: Size
) -> Tensor:
    """The maps of frame t, each content in its reference image and padding where it is."""
    maps = _wide(frame(t))
    size = (maps.shape[2], maps.shape[3])
    if all(one == canvas for one in content):
        return to_video.unwarp_frame(maps, t, canvas)
    out = maps.clone()
    for (height, width), rows in _groups(content):
        h, w = _scaled((height, width), canvas, size)
        out[rows, :, :h, :w] = to_video.unwarp_frame(maps[rows, :, :h, :w], t, (height, width))
    return out


def _groups(content: Sequence[Size]) -> list[tuple[Size, list[int]]]:
    """The rows of every size."""
    rows: dict[Size, list[int]] = {}
    for row, size in enumerate(content):
        rows.setdefault(size, []).append(row)
    return list(rows.items())


def _scaled(size: Size, canvas: Size, maps: Size) -> Size:
    """The part of a map that stands for the content: exact at the batch's own size, to the next whole pixel else."""
    return max(1, -(-size[0] * maps[0] // canvas[0])), max(1, -(-size[1] * maps[1] // canvas[1]))


def _wide(maps: Tensor) -> Tensor:
    return maps if maps.dtype == torch.float64 else maps.float()
